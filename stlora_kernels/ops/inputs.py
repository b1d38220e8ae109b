"""What every fused operation asks of its inputs: shapes, dtypes, ranges, autocast, and whether a gradient is wanted."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stlora_kernels.errors import InputError
from stlora_kernels.ops import native
from stlora_kernels.ops.backends import Backend

ACTIVATIONS = ("relu", "leaky_relu")


def needs_grad(*tensors: Tensor | None) -> bool:
    """Will there be a backward pass through a call on these tensors?"""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def why_not(
    backend: Backend, operation: str, sizes: Sequence[int], rank: int, x: Tensor, *parameters: Tensor | None
) -> str | None:
    """Why a backend's kernels do not cover a call, or None if they do. ``sizes``: what else the backend asks about."""
    if backend.module == "reference":
        return None
    if x.dtype not in backend.dtypes:
        return f"dtype {x.dtype} has no {backend.module} kernel"
    if rank > backend.highest_rank:
        return f"rank {rank} is beyond {backend.highest_rank}"
    if reason := backend.why_not(operation, x, rank, *sizes):
        return reason
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return None
    carried = any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in (x, *parameters))
    return "forward-mode derivatives have no kernel" if carried else None


def autocast_is_on(x: Tensor) -> bool:
    """Does autocast reach operations on this tensor?"""
    # torch knows no autocast for the meta device and refuses the question.
    if not torch._C._is_any_autocast_enabled():
        return False
    return isinstance(x, Tensor) and not x.is_meta and torch.is_autocast_enabled(x.device.type)


def autocast(tensor: Tensor, device_type: str) -> Tensor:
    """What autocast does to the inputs of torch's own linear layers."""
    lower = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(torch.get_autocast_dtype(device_type)) if lower else tensor


def check_number(name: str, value: object, low: float, high: float = math.inf, expected: str = "") -> None:
    """Refuse anything but a plain number in [low, high]; a tensor would silently lose its gradient."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not fits or (isinstance(value, int) and abs(value) > sys.float_info.max):
        given = f"a {type(value).__name__}" if isinstance(value, Tensor) else repr(value)
        raise InputError(f"{name}: got {given}, expected {expected or f'a number of at least {low:g}'}")


def check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    alpha: float,
    dropout_p: float,
    seed: Tensor | None,
    activation: str | None,
    negative_slope: float,
    node_index: Tensor | None,
    layer: int | None = None,
) -> bool:
    """Refuse what no backend can compute. In a stack, ``layer`` says whose parameters they are.

    Returns whether the tensors were seen to be plain (see :func:`stlora_kernels.ops.dispatch.plain`) on the way.
    """
    problem = (x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index)
    if torch.compiler.is_compiling() or not native.plain_nall(*problem):
        stack = ("h", *(f"{name}[{layer}]" for name in ("weights", "biases", "As", "Bs")))
        _refuse(problem, ("x", "weight", "bias", "A", "B") if layer is None else stack)
        return False
    return True


def _refuse(problem: tuple[Any, ...], names: Sequence[str]) -> None:
    """Say what does not fit; ``names`` are what the caller calls the tensors."""
    x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index = problem
    given = dict(zip((*names, "seed", "node_index"), (x, weight, bias, A, B, seed, node_index), strict=True))
    for name, tensor in given.items():
        required = name not in (names[2], "seed", "node_index")
        if not isinstance(tensor, Tensor) and (required or tensor is not None):
            raise InputError(f"{name}: got a {type(tensor).__name__}, expected a tensor")
        if tensor is not None and tensor.layout != torch.strided:
            raise InputError(f"{name}: got layout {tensor.layout}, expected {torch.strided}")
    name_x, name_weight, name_bias, name_A, name_B = names
    if x.dim() < 2:
        raise InputError(f"{name_x}: got shape {list(x.shape)}, expected [*, N, I]")
    if not x.is_floating_point():
        raise InputError(f"{name_x}: got dtype {x.dtype}, expected a floating-point dtype")
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise InputError(
            f"{name_weight}: got shape {list(weight.shape)}, expected [O, {x.shape[-1]}] "
            f"to fit {name_x} {list(x.shape)}"
        )
    N, (O, I) = x.shape[-2], weight.shape  # noqa: E741
    if bias is not None and bias.shape != (O,):
        raise InputError(f"{name_bias}: got shape {list(bias.shape)}, expected [{O}]")
    if A.dim() != 3 or A.shape[1] != O or A.shape[2] < 1:
        raise InputError(f"{name_A}: got shape {list(A.shape)}, expected [adapters, {O}, rank]")
    P, r = A.shape[0], A.shape[2]
    if B.shape != (P, r, I):
        raise InputError(
            f"{name_B}: got shape {list(B.shape)}, expected [{P}, {r}, {I}] to fit {name_A} {list(A.shape)}"
        )
    if node_index is None:
        if P != N:
            raise InputError(
                f"{name_A}: got {P} adapters for the {N} nodes of {name_x}; expected one each, or a node_index"
            )
    elif node_index.shape != (N,) or node_index.dtype != torch.int64:
        raise InputError(f"node_index: got {node_index.dtype} {list(node_index.shape)}, expected int64 [{N}]")
    for name, tensor in list(given.items())[1:5]:
        if tensor is not None and (tensor.dtype != x.dtype or tensor.device != x.device):
            raise InputError(
                f"{name}: got {tensor.dtype} on {tensor.device}, expected {x.dtype} on {x.device} like {name_x}"
            )
    if node_index is not None and node_index.device != x.device:
        raise InputError(f"node_index: got device {node_index.device}, expected {x.device} like {name_x}")
    if seed is not None and (seed.dim() != 0 or seed.dtype != torch.int64):
        raise InputError(f"seed: got {seed.dtype} {list(seed.shape)}, expected a 0-d int64 tensor")
    if activation is not None and activation not in ACTIVATIONS:
        raise InputError(f"activation: got {activation!r}, expected None, {' or '.join(map(repr, ACTIVATIONS))}")
    check_number("alpha", alpha, -math.inf, expected="a number")
    check_number("dropout_p", dropout_p, 0, 1, expected="a probability in [0, 1]")
    check_number("negative_slope", negative_slope, 0)


def check_range(node_index: Tensor, adapters: int) -> None:
    if node_index.numel() and not 0 <= int(node_index.min()) <= int(node_index.max()) < adapters:
        worst = node_index[(node_index < 0) | (node_index >= adapters)][0]
        raise InputError(f"node_index: got {int(worst)}, expected an adapter in [0, {adapters})")
