"""The NSP stack on the CPU: hands tensors to the kernels of ``csrc/cpu``."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stlora_kernels.ops import native
from stlora_kernels.ops.nall.cpu import empty_gradient, flatten, why_not

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
    biases: Sequence[Tensor | None],
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
    layers = list(zip(norm_weights, weights, biases or [None] * len(weights), As, Bs, strict=True))
    native.call(
        kernel, torch.get_num_threads(), h, layers, 0 if seed is None else int(seed), node_index,
        alpha, eps, negative_slope, dropout_p, *rest,
    )  # fmt: skip


def forward(h: Tensor, save: bool, *problem) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """See :func:`stlora_kernels.ops.nsp.reference.nsp_stack`; returns y and what the backward pass reads."""
    y = torch.empty_like(h, memory_format=torch.contiguous_format)
    saved = saved_like(h, len(problem[0]) if save else 1)
    _call("nsp_forward", flatten(h), *problem, y, saved if saved.numel() else None)
    return y, saved


def backward(grad: Tensor, saved: Tensor, needs: list[bool], h: Tensor, *problem) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Gradients of h and of every norm weight, weight, bias, A, B, in this order; empty where not needed."""
    inputs = [h, *(t for tensors in problem[:5] for t in tensors)]
    gradients = [empty_gradient(t) if needed else t.new_empty(0) for t, needed in zip(inputs, needs, strict=True)]
    outputs = iter([g if needed else None for g, needed in zip(gradients, needs, strict=True)])
    dh = next(outputs)
    depth = len(problem[0])
    by_parameter = [[next(outputs) if tensors else None for _ in range(depth)] for tensors in problem[:5]]
    by_layer = list(zip(*by_parameter, strict=True))
    _call("nsp_backward", flatten(h), *problem, flatten(grad), saved, dh, by_layer)
    return gradients
