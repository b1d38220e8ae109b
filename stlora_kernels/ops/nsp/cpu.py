"""The NSP stack on the CPU: hands tensors to the kernels of ``csrc/cpu``."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.ops import native
from stlora_kernels.ops.nall.cpu import empty_gradients, flatten


def saved_like(h: Tensor, depth: int) -> Tensor:
    """Room for the inputs of the layers after the first, ``[N, L-1, M, D]`` in the type they are computed in."""
    dtype = torch.float64 if h.dtype == torch.float64 else torch.float32
    rows = math.prod(h.shape[:-2])
    return h.new_empty(h.shape[-2], depth - 1, rows, h.shape[-1], dtype=dtype)


def forward(h: Tensor, save: bool, *problem: Any) -> tuple[Tensor, Tensor]:
    """See :func:`stlora_kernels.ops.nsp.reference.nsp_stack`; returns y and what the backward pass reads."""
    y = torch.empty_like(h, memory_format=torch.contiguous_format)
    saved = saved_like(h, len(problem[0]) if save else 1)
    native.kernels().nsp_forward(torch.get_num_threads(), flatten(h), *problem, y, saved if saved.numel() else None)
    return y, saved


def backward(grad: Tensor, saved: Tensor, needs: Sequence[bool], h: Tensor, *problem: Any) -> list[Tensor | None]:
    """Gradients of h and of every norm weight, weight, bias, A, B, in this order; None where not needed."""
    gradients = empty_gradients([h, *(t for tensors in problem[:5] for t in tensors)], needs)
    outputs = iter(gradients)
    dh = next(outputs)
    by_parameter = [[next(outputs) if tensors else None for _ in problem[0]] for tensors in problem[:5]]
    by_layer = list(zip(*by_parameter, strict=True))
    native.kernels().nsp_backward(flatten(grad), saved, dh, by_layer, torch.get_num_threads(), flatten(h), *problem)
    return gradients
