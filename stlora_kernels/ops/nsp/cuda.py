"""The NSP stack in CUDA C++: hands tensors to the kernels of ``csrc/cuda``, one launch forward and one backward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.ops import cuda_launch, gpu
from stlora_kernels.ops.nall.cpu import empty_gradients, flatten
from stlora_kernels.ops.nsp.cpu import saved_like


def forward(h: Tensor, save: bool, *problem: Any) -> tuple[Tensor, Tensor]:
    """See :func:`stlora_kernels.ops.nsp.reference.nsp_stack`; returns y and what the backward pass reads."""
    *parameters, seed, node_index = problem[:7]
    y = torch.empty_like(h, memory_format=torch.contiguous_format)
    saved = saved_like(h, len(parameters[0]) if save else 1)
    index = gpu.checked(node_index, parameters[3][0].shape[0])
    with gpu.on(h):
        cuda_launch.kernels(h).cuda_nsp_forward(
            cuda_launch.launch(h, seed), flatten(h), *parameters, seed, index, *problem[7:], y,
            saved if saved.numel() else None,
        )  # fmt: skip
    return y, saved


def backward(grad: Tensor, saved: Tensor, needs: Sequence[bool], h: Tensor, *problem: Any) -> list[Tensor | None]:
    """Gradients of h and of every norm weight, weight, bias, A, B, in this order; None where not needed.

    A gradient that one layer needs is computed for all: the layers share their blocks.
    """
    *parameters, seed, node_index = problem[:7]
    asked = iter(needs[1:])
    wanted = [any([next(asked) for _ in tensors]) for tensors in parameters]
    everywhere = [needs[0], *(w for w, tensors in zip(wanted, parameters, strict=True) for _ in tensors)]
    gradients = empty_gradients([h, *(t for tensors in parameters for t in tensors)], everywhere)
    outputs = iter(gradients)
    dh = next(outputs)
    by_parameter = [[next(outputs) if tensors else None for _ in parameters[0]] for tensors in parameters]
    h3 = flatten(h)
    left = torch.empty(2, len(parameters[0]), *h3.shape, dtype=h.dtype, device=h.device) if any(wanted[1:]) else None
    with gpu.on(h):
        index, order, first_slot = gpu.by_adapter(node_index, parameters[3][0].shape[0])
        cuda_launch.kernels(h).cuda_nsp_backward(
            cuda_launch.launch(h, seed), cuda_launch.room(h), flatten(grad), saved, dh,
            list(zip(*by_parameter, strict=True)), left, order, first_slot,
            h3, *parameters, seed, index, *problem[7:],
        )  # fmt: skip
    return [g if n else None for g, n in zip(gradients, needs, strict=True)]
