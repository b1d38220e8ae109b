"""NALL in Triton: hands tensors to the kernels of ``triton_kernels.py``, one launch forward and one backward."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from stlora_kernels.ops import gpu, triton_configs, triton_launch
from stlora_kernels.ops.nall import triton_kernels
from stlora_kernels.ops.nall.cpu import empty_gradients, flatten
from stlora_kernels.ops.triton_launch import contiguous


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, seed: Tensor | None,
    node_index: Tensor | None, alpha: float, dropout_p: float, activation: str, negative_slope: float,
) -> Tensor:  # fmt: skip
    """See :func:`stlora_kernels.ops.nall.reference.nall`; returns a contiguous ``[*, N, O]``."""
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    if y.numel() == 0:
        return y
    x3, target = flatten(x), triton_launch.gpu(x.device)
    (M, N, I), (_, O, r) = x3.shape, A.shape
    W, b, A_n, B_n = map(contiguous, (weight, bias, A, B))
    index = gpu.checked(node_index, A.shape[0])
    numerics = triton_launch.numerics(x, dropout_p, seed, target)

    def launch(config: triton_configs.Config) -> None:
        grid = (N * triton.cdiv(M, config["BM"]), triton.cdiv(O, config["BO"]))
        triton_kernels.forward[grid](
            x3, W, b, A_n, B_n, node_index=index, y=y, M=M, N=N, I=I, O=O, r=r,
            x_m=x3.stride(0), x_n=x3.stride(1), x_i=x3.stride(2), alpha=alpha, slope=negative_slope,
            HAS_BIAS=b is not None, HAS_INDEX=index is not None, ACTIVATION=activation,
            **numerics, **triton_configs.options(config, target),
        )  # fmt: skip

    with gpu.on(x):
        default = triton_configs.from_table("nall forward", x.dtype, M, I, O, r)
        launch(
            triton_configs.tuned(
                ("nall forward", N, I, O, r, dropout_p > 0, activation, index is None), M, x, numerics, default, launch
            )
        )
    return y


def backward(
    grad: Tensor, y: Tensor | None, needs: Sequence[bool], x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor,
    B: Tensor, seed: Tensor | None, node_index: Tensor | None, alpha: float, dropout_p: float, activation: str,
    negative_slope: float,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias, A, B; None for one that is not needed."""
    gradients = empty_gradients((x, weight, weight if bias is None else bias, A, B), needs)
    x3, g3, target = flatten(x), flatten(grad), triton_launch.gpu(x.device)
    (M, N, I), (P, O, r) = x3.shape, A.shape
    W, A_n, B_n = map(contiguous, (weight, A, B))
    index, order, first_slot = gpu.by_adapter(node_index, P)
    numerics = triton_launch.numerics(x, dropout_p, seed, target)

    def launch(config: triton_configs.Config) -> None:
        share = triton_launch.share(x.device, needs[1:], M, N, I, O, P, config)
        programs = share.programs + N * triton.cdiv(M, config["BM"]) * triton.cdiv(I, config["BI"]) * needs[0]
        if programs == 0:
            return
        triton_kernels.backward[(programs,)](
            g3, y, x3, W, A_n, B_n, node_index=index, order=order, first_slot=first_slot,
            dx=gradients[0], dweight=gradients[1], dbias=gradients[2], dA=gradients[3], dB=gradients[4],
            workspace=torch.empty(share.room, dtype=torch.float32, device=x.device),
            counters=torch.zeros(share.counters, dtype=torch.int32, device=x.device),
            M=M, N=N, I=I, O=O, P=P, r=r, g_m=g3.stride(0), g_n=g3.stride(1), g_o=g3.stride(2),
            x_m=x3.stride(0), x_n=x3.stride(1), x_i=x3.stride(2), alpha=alpha, slope=negative_slope,
            parameter_programs=share.programs, HAS_INDEX=index is not None, ACTIVATION=activation,
            NEEDS_X=needs[0], NEEDS_WEIGHT=needs[1], NEEDS_BIAS=needs[2], NEEDS_A=needs[3], NEEDS_B=needs[4],
            **share.splits, **numerics, **triton_configs.options(config, target),
        )  # fmt: skip

    with gpu.on(x):
        default = triton_configs.from_table("nall backward", x.dtype, M, I, O, r)
        launch(
            triton_configs.tuned(
                ("nall backward", N, I, O, P, r, dropout_p > 0, activation, index is None, *needs),
                M,
                x,
                numerics,
                default,
                launch,
            )
        )
    return gradients
