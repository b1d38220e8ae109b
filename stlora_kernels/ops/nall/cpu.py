"""NALL on the CPU: hands addresses, sizes and strides to the kernels of ``csrc/cpu``."""

from typing import Any

import torch
from torch import Tensor

from stlora_kernels.ops import native

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # in the order of csrc's enum DType
DTYPE_CODE = {dtype: code for code, dtype in enumerate(DTYPES)}
_ACTIVATION_CODE = {"none": 0, "relu": 1, "leaky_relu": 2}  # csrc's enum Activation


def why_not(x: Tensor) -> str | None:
    """Why these kernels do not cover a call, or None if they do."""
    return None if x.dtype in DTYPE_CODE else f"dtype {x.dtype} has no CPU kernel"


def flatten(x: Tensor) -> Tensor:
    """``[*, N, I]`` -> ``[M, N, I]``: a view wherever the leading dims can be one, whatever the strides."""
    return x if x.dim() == 3 else x.reshape(-1, *x.shape[-2:])


def per_adapter(factor: Tensor) -> Tensor:
    """Each adapter's matrix contiguous; adapters may share memory, so an expanded factor is not copied."""
    if factor.is_contiguous() or (factor.stride(2) == 1 and factor.stride(1) == factor.shape[2]):
        return factor
    if factor.stride(0) == 0 and factor.shape[0] > 1:
        return factor[:1].contiguous().expand_as(factor)
    return factor.contiguous()


def empty_gradient(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _call(
    kernel: str,
    x: Tensor,  # [M, N, I]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
    A: Tensor,  # [P, O, r]
    B: Tensor,  # [P, r, I]
    seed: Tensor | None,
    node_index: Tensor | None,  # [N]
    alpha: float,
    dropout_p: float,
    activation: str,
    negative_slope: float,
    *rest: int,
) -> None:
    # Kept in names until the call returns: copies made here must outlive the addresses taken of them.
    weight, A, B = weight.contiguous(), per_adapter(A), per_adapter(B)
    bias = None if bias is None else bias.contiguous()
    node_index = None if node_index is None else node_index.contiguous()
    M, N, I = x.shape  # noqa: E741
    P, O, r = A.shape  # noqa: E741
    native.call(
        kernel,
        torch.get_num_threads(), DTYPE_CODE[x.dtype], M, N, I, O, r, P,
        x.data_ptr(), *x.stride(),
        weight.data_ptr(), address(bias), A.data_ptr(), A.stride(0), B.data_ptr(), B.stride(0),
        address(node_index), alpha, dropout_p, 0 if seed is None else int(seed),
        _ACTIVATION_CODE[activation], negative_slope, *rest,
    )  # fmt: skip


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *others: Any) -> Tensor:
    """See :func:`stlora_kernels.ops.nall.reference.nall`; returns a contiguous ``[*, N, O]``."""
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    _call("nall_forward", flatten(x), weight, bias, *others, y.data_ptr())
    return y


def backward(
    grad: Tensor,  # [*, N, O]
    y: Tensor | None,  # [*, N, O], contiguous; only where there is an activation
    needs: list[bool],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, A, B; an empty tensor stands for one that is not needed."""
    like = (x, weight, weight if bias is None else bias, A, B)
    gradients = tuple([empty_gradient(t) if needed else t.new_empty(0) for t, needed in zip(like, needs, strict=True)])
    grad = flatten(grad)
    outputs = [g.data_ptr() if needed else 0 for g, needed in zip(gradients, needs, strict=True)]
    _call(
        "nall_backward", flatten(x), weight, bias, A, B, *others,
        grad.data_ptr(), *grad.stride(), address(y), *outputs,
    )  # fmt: skip
    return gradients  # type: ignore[return-value]
