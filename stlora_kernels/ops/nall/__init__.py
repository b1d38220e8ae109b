"""``sk.nall``: checks, the choice of a backend, and the operator that torch sees.

The operators ``stlora::nall`` and ``stlora::nall_backward`` carry the backend's name as an argument, so that a
compiled or exported graph keeps the backend it was traced with. Autograd is a Function around them: registering it
on the operator costs twice as much per call. A plain eager call goes past the operators, straight to the backend.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stlora_kernels.errors import InputError
from stlora_kernels.ops import dispatch, philox
from stlora_kernels.ops.nall import cpu, reference

ACTIVATIONS = ("relu", "leaky_relu")
_KERNELS = {"cpu": cpu}


def nall(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    alpha: float = 1.0,
    *,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.1,
    node_index: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Node-adaptive low-rank layer: a shared linear map plus each node's own low-rank correction.

    .. math:: y_{m,n} = \mathrm{act}(W x_{m,n} + b + \alpha A_n (B_n \, \mathrm{dropout}_p(x_{m,n})))

    Args:
        x: ``[*, N, I]``, any leading dims and strides.
        weight: ``[O, I]``, shared by all nodes.
        bias: ``[O]`` or None.
        A, B: ``[P, O, r]`` and ``[P, r, I]``, one pair per adapter; ``P == N`` unless ``node_index`` is given.
        alpha: plain multiplier of the low-rank path.
        dropout_p: probability of dropping an element on the low-rank path, in [0, 1].
        seed: 0-d int64 that decides the mask (see :mod:`stlora_kernels.ops.philox`); drawn from torch's
            generator when dropout is on and none is given.
        activation: None, "relu" or "leaky_relu".
        negative_slope: of leaky_relu, at least 0.
        node_index: ``[N]`` int64, the adapter each node slot uses; any order, repeats allowed.
        backend: one of :func:`stlora_kernels.available_backends`; the fastest that covers the call if None.

    Returns:
        ``[*, N, O]`` in the dtype of ``x`` (of autocast where that is on).

    Raises:
        InputError: for shapes, dtypes, devices or ranges that do not fit, before anything is computed.

    Memory: y, and for the backward pass the gradients; x and y are neither copied nor kept beside (y where there is an
    activation). On the CPU each thread keeps a scratch of at most ``4 I O + 8 r (I + O) + 1000 (I + O + r) + 2^16``
    numbers of the type computed in.

    Source: ST-LoRA, arXiv 2404.07919, eq. (2).
    """
    if autocast_is_on(x):
        device_type = x.device.type
        x, weight, A, B = (autocast(t, device_type) for t in (x, weight, A, B))
        bias = None if bias is None else autocast(bias, device_type)
    check(x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index)
    name = dispatch.choose("nall", backend, x.device.type, lambda name: _why_not(name, x))
    if dropout_p > 0 and seed is None:
        seed = philox.draw_seed()
    if name == "reference":
        if node_index is not None and not torch.compiler.is_compiling():
            check_range(node_index, A.shape[0])
        return reference.nall(x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index)
    direct = dispatch.plain(x, weight, bias, A, B)
    options = (alpha, dropout_p, activation or "none", negative_slope)
    # Where no gradient is wanted, no Function: less to do per call, and less for torch.compile to trace.
    if needs_grad(x, weight, bias, A, B):
        return dispatch.apply(_Nall, direct, direct, x, weight, bias, A, B, seed, node_index, *options, name)
    if direct:
        return _KERNELS[name].forward(x, weight, bias, A, B, seed, node_index, *options)
    return torch.ops.stlora.nall(x, weight, bias, A, B, seed, node_index, *options, name)


def _why_not(name: str, x: Tensor) -> str | None:
    return None if name == "reference" else _KERNELS[name].why_not(x)


def needs_grad(*tensors: Tensor | None) -> bool:
    """Will there be a backward pass through a call on these tensors?"""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def autocast_is_on(x: Tensor) -> bool:
    """Does autocast reach operations on this tensor?"""
    # torch knows no autocast for the meta device and refuses the question.
    return isinstance(x, Tensor) and not x.is_meta and torch.is_autocast_enabled("cpu" if x.is_cpu else x.device.type)


def autocast(tensor: Tensor, device_type: str) -> Tensor:
    """What autocast does to the inputs of torch's own linear layers."""
    lower = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(torch.get_autocast_dtype(device_type)) if lower else tensor


def check_number(name: str, value: object, low: float, high: float = math.inf, expected: str = "") -> None:
    """Refuse anything but a plain number in [low, high]; a tensor would silently lose its gradient."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
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
) -> None:
    """Refuse what no backend can compute. In a stack, ``layer`` says whose parameters they are."""
    problem = (x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index)
    if torch.compiler.is_compiling() or not _fits(*problem):
        stack = ("h", *(f"{name}[{layer}]" for name in ("weights", "biases", "As", "Bs")))
        _refuse(*problem, ("x", "weight", "bias", "A", "B") if layer is None else stack)


_NUMBERS = (float, int)


def _fits(
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
) -> bool:
    """Is this a call that :func:`_refuse` would let pass? At a tenth of its cost, which a small layer would notice."""
    try:
        N, I = x.shape[-2:]  # noqa: E741
        P, O, r = A.shape  # noqa: E741
        dtype, device = x.dtype, x.device
        return (
            dtype.is_floating_point
            and weight.shape == (O, I)
            and B.shape == (P, r, I)
            and r > 0
            and dtype == weight.dtype == A.dtype == B.dtype
            and device == weight.device == A.device == B.device
            and x.layout == weight.layout == A.layout == B.layout == torch.strided
            and (
                bias is None
                or (
                    bias.shape == (O,)
                    and bias.dtype == dtype
                    and bias.device == device
                    and bias.layout == torch.strided
                )
            )
            and node_index is None
            and P == N
            and seed is None
            and (activation is None or activation in ACTIVATIONS)
            and type(alpha) in _NUMBERS
            and alpha == alpha
            and type(dropout_p) in _NUMBERS
            and 0 <= dropout_p <= 1
            and type(negative_slope) in _NUMBERS
            and negative_slope >= 0
        )
    except (AttributeError, TypeError, ValueError):
        return False


def _refuse(
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
    names: Sequence[str],
) -> None:
    """Say what does not fit; ``names`` are what the caller calls the tensors."""
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


_library = torch.library.Library("stlora", "FRAGMENT")
_library.define(
    "nall(Tensor x, Tensor weight, Tensor? bias, Tensor A, Tensor B, Tensor? seed, Tensor? node_index, "
    "float alpha, float dropout_p, str activation, float negative_slope, str backend) -> Tensor"
)
_library.define(
    "nall_backward(Tensor grad, Tensor? y, bool[] needs, Tensor x, Tensor weight, Tensor? bias, Tensor A, Tensor B, "
    "Tensor? seed, Tensor? node_index, float alpha, float dropout_p, str activation, float negative_slope, "
    "str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_library, "nall", "CompositeExplicitAutograd")
def _forward(*args):
    *problem, backend = args
    return _KERNELS[backend].forward(*problem)


@torch.library.impl(_library, "nall_backward", "CompositeExplicitAutograd")
def _backward(*args):
    *problem, backend = args
    return _KERNELS[backend].backward(*problem)


@torch.library.register_fake("stlora::nall", lib=_library)
def _forward_fake(x, weight, *_):
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.register_fake("stlora::nall_backward", lib=_library)
def _backward_fake(grad, y, needs, x, weight, bias, A, B, *_):
    shapes = (x.shape, weight.shape, weight.shape[:1], A.shape, B.shape)
    return tuple(x.new_empty(shape if needed else (0,)) for shape, needed in zip(shapes, needs, strict=True))


class _Nall(torch.autograd.Function):
    @staticmethod
    def forward(direct, *arguments):
        return (_forward if direct else torch.ops.stlora.nall)(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, x, weight, bias, A, B, seed, node_index, *options = inputs
        activation = options[2]
        ctx.save_for_backward(x, weight, bias, A, B, seed, node_index, None if activation == "none" else output)
        ctx.options = options

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        *tensors, y = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[1:6])
        backward = _backward if dispatch.plain(grad, *tensors[:5]) else torch.ops.stlora.nall_backward
        gradients = backward(grad, y, needs, *tensors, *ctx.options)
        used = [g if needed else None for g, needed in zip(gradients, needs, strict=True)]
        return None, *used, *[None] * (2 + len(ctx.options))
