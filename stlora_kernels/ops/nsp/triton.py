"""The NSP stack in Triton: hands tensors to the kernels of ``triton_kernels.py``."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from stlora_kernels.ops import gpu, triton_configs, triton_launch
from stlora_kernels.ops.nall.cpu import empty_gradients, flatten
from stlora_kernels.ops.nsp import triton_gradients, triton_kernels
from stlora_kernels.ops.nsp.cpu import saved_like


def forward(
    h: Tensor, save: bool, norm_weights: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor],
    As: Sequence[Tensor], Bs: Sequence[Tensor], seed: Tensor | None, node_index: Tensor | None, alpha: float,
    eps: float, negative_slope: float, dropout_p: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See :func:`stlora_kernels.ops.nsp.reference.nsp_stack`; returns y and what the backward pass reads."""
    y = torch.empty_like(h, memory_format=torch.contiguous_format)
    depth, ranks = len(weights), tuple(A.shape[2] for A in As)
    saved = saved_like(h, depth if save else 1)
    if y.numel() == 0:
        return y, saved
    h3, target = flatten(h), triton_launch.gpu(h.device)
    index = gpu.checked(node_index, As[0].shape[0])
    M, N, D = h3.shape
    parameters = [tuple(t.contiguous() for t in tensors) for tensors in (norm_weights, weights, biases, As, Bs)]
    narrow = triton_configs.is_narrow("forward", h.dtype, D, max(ranks))
    kernel = triton_kernels.narrow if narrow else triton_kernels.wide
    # Wide rows' layers meet in memory whether or not a backward pass will come.
    meeting = saved if save or narrow else saved_like(h, depth)
    only = {"SAVE": save and depth > 1} if narrow else {"s_rows": torch.empty_like(y)}
    numerics = triton_launch.numerics(h, dropout_p, seed, target)

    def launch(config: triton_configs.Config) -> None:
        chunks = {"CHUNKS": triton.cdiv(D, config["BD"])} if narrow else {}
        kernel[(N * triton.cdiv(M, config["ROWS"]),)](
            h3, *parameters, ranks=ranks, node_index=index, y=y, saved=meeting, saved_n=meeting.stride(0),
            M=M, N=N, D=D, L=depth, h_m=h3.stride(0), h_n=h3.stride(1), h_d=h3.stride(2), alpha=alpha, eps=eps,
            slope=negative_slope, HAS_BIAS=len(biases) > 0, HAS_INDEX=index is not None,
            **only, **chunks, **numerics, **triton_configs.options(config, target),
        )  # fmt: skip

    with gpu.on(h):
        name = f"nsp {'narrow' if narrow else 'wide'} forward"
        default = triton_configs.from_table(name, h.dtype, M, D, D, max(ranks))
        launch(triton_configs.tuned((name, N, D, ranks, dropout_p > 0, index is None), M, h, numerics, default, launch))
    return y, saved


def backward(
    grad: Tensor, saved: Tensor, needs: Sequence[bool], h: Tensor, norm_weights: Sequence[Tensor],
    weights: Sequence[Tensor], biases: Sequence[Tensor], As: Sequence[Tensor], Bs: Sequence[Tensor],
    seed: Tensor | None, node_index: Tensor | None, alpha: float, eps: float, negative_slope: float, dropout_p: float,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of h and of every norm weight, weight, bias, A, B, in this order; None where not needed.

    A gradient that one layer needs is computed for all, and that of h always: the layers share their programs.
    """
    parameters = (norm_weights, weights, biases, As, Bs)
    gradients = empty_gradients([h, *(t for ts in parameters for t in ts)], [True] * len(needs))
    rest, asked = iter(gradients[1:]), iter(needs[1:])
    dnorms, dweights, dbiases, dAs, dBs = (tuple(next(rest) for _ in tensors) for tensors in parameters)
    wanted = [any([next(asked) for _ in tensors]) for tensors in parameters]
    norms, weights, _, As, Bs = (tuple(t.contiguous() for t in tensors) for tensors in parameters)
    depth, P, ranks = len(weights), As[0].shape[0], tuple(A.shape[2] for A in As)
    h3, g3, target = flatten(h), flatten(grad), triton_launch.gpu(h.device)
    M, N, D = h3.shape
    index, order, first_slot = gpu.by_adapter(node_index, P)
    narrow = triton_configs.is_narrow("backward", h.dtype, D, max(ranks))
    # What the rows leave to the other phases, [2, L, M, N, D], and where wide rows hand down their gradient.
    left = torch.empty(2, depth, M, N, D, dtype=h.dtype, device=h.device)
    chain = None if narrow else torch.empty(2, M, N, D, dtype=torch.float32, device=h.device)
    numerics = triton_launch.numerics(h, dropout_p, seed, target)

    def launch(config: triton_configs.Config) -> None:
        share = triton_launch.share(h.device, wanted[1:], M, N, D, D, P, config)
        jobs = N * triton.cdiv(M, config["ROWS"])
        programs = jobs + depth * share.programs + wanted[0] * depth * triton.cdiv(D, config["BI"])
        if programs == 0:
            return
        work = torch.empty(depth * (share.room + jobs * D), dtype=torch.float32, device=h.device)
        triton_gradients.backward[(programs,)](
            g3, h3, saved, norms, weights, As, Bs, node_index=index, order=order, first_slot=first_slot,
            dh=gradients[0], dnorms=dnorms, dweights=dweights, dbiases=dbiases, dAs=dAs, dBs=dBs, inner_g=left[0],
            inner_s=left[1], norm_parts=work[depth * share.room :], chain=chain, workspace=work,
            counters=torch.zeros(2 + depth * share.counters, dtype=torch.int32, device=h.device),
            M=M, N=N, D=D, P=P, ranks=ranks, L=depth,
            g_m=g3.stride(0), g_n=g3.stride(1), g_d=g3.stride(2), h_m=h3.stride(0), h_n=h3.stride(1),
            h_d=h3.stride(2), saved_n=saved.stride(0), jobs=jobs, layer_programs=share.programs,
            layer_room=share.room, layer_counters=share.counters, alpha=alpha, eps=eps, slope=negative_slope,
            HAS_INDEX=index is not None, NARROW=narrow, CHUNKS=triton.cdiv(D, config["BD"]),
            NEEDS_NORM=wanted[0], NEEDS_WEIGHT=wanted[1], NEEDS_BIAS=wanted[2], NEEDS_A=wanted[3], NEEDS_B=wanted[4],
            **share.splits, **numerics, **triton_configs.options(config, target),
        )  # fmt: skip

    with gpu.on(h):
        default = triton_configs.from_table("nsp backward", h.dtype, M, D, D, max(ranks))
        launch(
            triton_configs.tuned(
                ("nsp backward", N, D, P, ranks, dropout_p > 0, index is None, *wanted), M, h, numerics, default, launch
            )
        )
    return [g if n else None for g, n in zip(gradients, needs, strict=True)]
