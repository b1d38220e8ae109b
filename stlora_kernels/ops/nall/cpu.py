"""NALL on the CPU: hands tensors to the kernels of ``csrc/cpu``."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.ops import native


def flatten(x: Tensor) -> Tensor:
    """``[*, N, I]`` -> ``[M, N, I]``: a view wherever the leading dims can be one, whatever the strides."""
    return x if x.dim() == 3 else x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def empty_gradients(tensors: Iterable[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """Room for the gradients that are needed."""
    contiguous = torch.contiguous_format
    return [torch.empty_like(t, memory_format=contiguous) if n else None for t, n in zip(tensors, needs, strict=True)]


def forward(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    """See :func:`stlora_kernels.ops.nall.reference.nall`; returns a contiguous ``[*, N, O]``."""
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    native.kernels().nall_forward(torch.get_num_threads(), flatten(x), weight, *others, y)
    return y


def backward(
    grad: Tensor,  # [*, N, O]
    y: Tensor | None,  # [*, N, O], contiguous; only where there is an activation
    needs: Sequence[bool],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    *others: Any,
) -> list[Tensor | None]:
    """Gradients of x, weight, bias, A, B; None for one that is not needed."""
    gradients = empty_gradients((x, weight, weight if bias is None else bias, A, B), needs)
    native.kernels().nall_backward(
        flatten(grad), y, gradients, torch.get_num_threads(), flatten(x), weight, bias, A, B, *others
    )
    return gradients
