"""``sk.nall``: checks, the choice of a backend, and the operator that torch sees.

The operators ``stlora::nall`` and ``stlora::nall_backward`` carry the backend's name as an argument, so that a
compiled or exported graph keeps the backend it was traced with. Autograd is a Function around them: registering it
on the operator costs twice as much per call. A plain eager call goes past the operators, straight to the backend.
"""

import torch
from torch import Tensor

from stlora_kernels.ops import dispatch, inputs, philox
from stlora_kernels.ops.nall import reference


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
            generator when dropout is on and none is given. In a CUDA graph, one on the GPU can change between replays;
            any other is a constant.
        activation: None, "relu" or "leaky_relu".
        negative_slope: of leaky_relu, at least 0.
        node_index: ``[N]`` int64, the adapter each node slot uses; any order, repeats allowed.
        backend: one of :func:`stlora_kernels.available_backends`; the fastest that covers the call if None.

    Returns:
        ``[*, N, O]`` in the dtype of ``x`` (of autocast where that is on).

    Raises:
        InputError: for shapes, dtypes, devices or ranges that do not fit, before anything is computed.

    Memory: y, and for the backward pass the gradients; x and y are neither copied nor kept beside (y where there is an
    activation). On the CPU each thread keeps a scratch of at most ``6 I O + 8 r (I + O) + 1000 (I + O + r) + 2^17``
    numbers of the type computed in, with I, O and r rounded up to multiples of 32. On a GPU the backward pass takes,
    for sums that blocks share, at most 4 tiles of 64 by ``65 + 2 r`` fp32 numbers per multiprocessor.

    Source: ST-LoRA, arXiv 2404.07919, eq. (2).
    """
    if inputs.autocast_is_on(x):
        device_type = x.device.type
        x, weight, A, B = (inputs.autocast(t, device_type) for t in (x, weight, A, B))
        bias = None if bias is None else inputs.autocast(bias, device_type)
    seen_plain = inputs.check(x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index)
    sizes = (x.shape[-1], weight.shape[0], dropout_p > 0)
    name = dispatch.choose("nall", backend, x.device.type, inputs.why_not, sizes, A.shape[2], x, weight, bias, A, B)
    if dropout_p > 0 and seed is None:
        seed = philox.draw_seed()
    if name == "reference":
        if node_index is not None and not torch.compiler.is_compiling():
            inputs.check_range(node_index, A.shape[0])
        return reference.nall(x, weight, bias, A, B, alpha, dropout_p, seed, activation, negative_slope, node_index)
    tensors = (x, weight, bias, A, B, seed, node_index)
    options = (alpha, dropout_p, activation or "none", negative_slope, name)
    direct = dispatch.nobody_listens() if seen_plain and seed is None else dispatch.plain(*tensors)
    # Where no gradient is wanted, no Function: less to do per call, and less for torch.compile to trace.
    if inputs.needs_grad(x, weight, bias, A, B):
        return dispatch.apply(_Nall, direct, direct, options, *tensors)
    return (_forward if direct else torch.ops.stlora.nall)(*tensors, *options)


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
    return dispatch.kernels("nall", args[-1]).forward(*args[:-1])


def _backward(*args):
    return dispatch.kernels("nall", args[-1]).backward(*args[:-1])


@torch.library.impl(_library, "nall_backward", "CompositeExplicitAutograd")
def _backward_operator(*args):
    gradients = [args[0].new_empty(0) if g is None else g for g in _backward(*args)]  # an operator returns tensors
    return tuple(gradients)


@torch.library.register_fake("stlora::nall", lib=_library)
def _forward_fake(x, weight, *_):
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.register_fake("stlora::nall_backward", lib=_library)
def _backward_fake(grad, y, needs, x, weight, bias, A, B, *_):
    shapes = (x.shape, weight.shape, weight.shape[:1], A.shape, B.shape)
    return tuple(x.new_empty(shape if needed else (0,)) for shape, needed in zip(shapes, needs, strict=True))


class _Nall(torch.autograd.Function):
    @staticmethod
    def forward(direct, options, *tensors):
        return (_forward if direct else torch.ops.stlora.nall)(*tensors, *options)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.options, *tensors = inputs
        activation = ctx.options[2]
        ctx.save_for_backward(*tensors, None if activation == "none" else output)

    @staticmethod
    @dispatch.once_differentiable
    def backward(ctx, grad):
        *tensors, y = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:7]
        problem = (grad, y, needs, *tensors, *ctx.options)
        if dispatch.plain(grad, y, *tensors):
            gradients = _backward(*problem)
        else:
            gradients = dispatch.needed(torch.ops.stlora.nall_backward(*problem), needs)
        return None, None, *gradients, None, None
