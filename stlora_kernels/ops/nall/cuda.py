"""NALL in CUDA C++: hands tensors to the kernels of ``csrc/cuda``, one launch forward and one backward."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stlora_kernels.ops import cuda_launch, gpu
from stlora_kernels.ops.nall.cpu import empty_gradients, flatten


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, seed: Tensor | None,
    node_index: Tensor | None, *options: Any,
) -> Tensor:  # fmt: skip
    """See :func:`stlora_kernels.ops.nall.reference.nall`; returns a contiguous ``[*, N, O]``."""
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    index = gpu.checked(node_index, A.shape[0])
    with gpu.on(x):
        cuda_launch.kernels(x).cuda_nall_forward(
            cuda_launch.launch(x, seed), flatten(x), weight, bias, A, B, seed, index, *options, y
        )
    return y


def backward(
    grad: Tensor, y: Tensor | None, needs: Sequence[bool], x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor,
    B: Tensor, seed: Tensor | None, node_index: Tensor | None, *options: Any,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias, A, B; None for one that is not needed."""
    gradients = empty_gradients((x, weight, weight if bias is None else bias, A, B), needs)
    with gpu.on(x):
        index, order, first_slot = gpu.by_adapter(node_index, A.shape[0])
        cuda_launch.kernels(x).cuda_nall_backward(
            cuda_launch.launch(x, seed), cuda_launch.room(x), flatten(grad), y, gradients, order, first_slot,
            flatten(x), weight, bias, A, B, seed, index, *options,
        )  # fmt: skip
    return gradients
