"""The NSP stack on the CPU: hands addresses, sizes and strides to the kernels of ``csrc/cpu``."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stlora_kernels.ops import native
from stlora_kernels.ops.nall.cpu import DTYPE_CODE, address, empty_gradient, flatten, per_adapter, why_not

__all__ = ["backward", "forward", "why_not"]


def saved_like(h: Tensor, depth: int) -> Tensor:
    """Room for the inputs of the layers after the first, ``[N, L-1, M, D]`` in the type they are computed in."""
    dtype = torch.float64 if h.dtype == torch.float64 else torch.float32
    rows = math.prod(h.shape[:-2])
    return h.new_empty(h.shape[-2], depth - 1, rows, h.shape[-1], dtype=dtype)


def _call(
    kernel: str,
    h: Tensor,  # [M, N, D]
    norm_weights: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    As: Sequence[Tensor],
    Bs: Sequence[Tensor],
    seed: Tensor | None,
    node_index: Tensor | None,
    alpha: float,
    eps: float,
    negative_slope: float,
    dropout_p: float,
    *rest: object,
) -> None:
    # Kept in names until the call returns: copies made here must outlive the addresses taken of them.
    contiguous = [[t.contiguous() for t in tensors] for tensors in (norm_weights, weights, biases)]
    factors = [[per_adapter(t) for t in tensors] for tensors in (As, Bs)]
    node_index = None if node_index is None else node_index.contiguous()
    norms, ws, bs = ([t.data_ptr() for t in tensors] for tensors in contiguous)
    layers = [
        (norm, w, b, A.data_ptr(), A.stride(0), B.data_ptr(), B.stride(0), A.shape[2])
        for norm, w, b, A, B in zip(norms, ws, bs or [0] * len(ws), *factors, strict=True)
    ]
    M, N, D = h.shape
    native.call(
        kernel,
        torch.get_num_threads(), DTYPE_CODE[h.dtype], M, N, D, factors[0][0].shape[0], layers,
        h.data_ptr(), *h.stride(), address(node_index),
        alpha, eps, negative_slope, dropout_p, 0 if seed is None else int(seed), *rest,
    )  # fmt: skip


def forward(h: Tensor, save: bool, *problem) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """See :func:`stlora_kernels.ops.nsp.reference.nsp_stack`; returns y and what the backward pass reads."""
    y = torch.empty_like(h, memory_format=torch.contiguous_format)
    saved = saved_like(h, len(problem[0]) if save else 1)
    _call("nsp_forward", flatten(h), *problem, y.data_ptr(), saved.data_ptr() if saved.numel() else 0)
    return y, saved


def backward(grad: Tensor, saved: Tensor, needs: list[bool], h: Tensor, *problem) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Gradients of h and of every norm weight, weight, bias, A, B, in this order; empty where not needed."""
    inputs = [h, *(t for tensors in problem[:5] for t in tensors)]
    gradients = [empty_gradient(t) if needed else t.new_empty(0) for t, needed in zip(inputs, needs, strict=True)]
    addresses = iter([g.data_ptr() if needed else 0 for g, needed in zip(gradients, needs, strict=True)])
    dh = next(addresses)
    depth = len(problem[0])
    by_parameter = [[next(addresses) if tensors else 0 for _ in range(depth)] for tensors in problem[:5]]
    grad = flatten(grad)
    _call(
        "nsp_backward", flatten(h), *problem,
        grad.data_ptr(), *grad.stride(), saved.data_ptr(), dh, list(zip(*by_parameter, strict=True)),
    )  # fmt: skip
    return gradients
