"""``sk.nsp_layer`` and ``sk.nsp_stack``: residual node-specific layers, one fused operation for any number of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.errors import InputError
from stlora_kernels.ops import dispatch, inputs, philox
from stlora_kernels.ops.nsp import cpu, reference


def nsp_layer(
    h: Tensor,
    norm_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    alpha: float = 1.0,
    *,
    eps: float = 1e-6,
    negative_slope: float = 0.1,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    node_index: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""One residual layer of a node-specific predictor: :func:`nsp_stack` with a single layer.

    .. math:: h' = h + \mathrm{NALL}(\mathrm{dropout}_p(\mathrm{leaky\_relu}(\mathrm{rms\_norm}(h))))
    """
    biases = None if bias is None else [bias]
    return nsp_stack(
        h, [norm_weight], [weight], biases, [A], [B], alpha, eps=eps, negative_slope=negative_slope,
        dropout_p=dropout_p, seed=seed, node_index=node_index, backend=backend,
    )  # fmt: skip


def nsp_stack(
    h: Tensor,
    norm_weights: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    As: Sequence[Tensor],
    Bs: Sequence[Tensor],
    alpha: float = 1.0,
    *,
    eps: float = 1e-6,
    negative_slope: float = 0.1,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    node_index: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""L residual layers of a node-specific predictor in one call.

    .. math::
        h_{l+1} = h_l + W_l s_l + b_l + \alpha A_{l,n} (B_{l,n} s_l), \quad
        s_l = \mathrm{dropout}_p(\mathrm{leaky\_relu}(\mathrm{rms\_norm}(h_l)))

    Memory: besides y, the forward pass keeps the inputs of the layers after the first for the backward pass,
    ``(L - 1) * M * N * D`` numbers of fp32 (fp64 for fp64), where a gradient will be asked for: recomputing them would
    cost the forward pass again, a third of a training step, and reading them costs a few percent. Masks, normalised
    values and activations are recomputed. The backward pass adds the gradients only. On the CPU each thread keeps a
    scratch of at most ``6 L D (D + 4 r) + 1000 (D + r + L) + 2^17`` numbers, D and r rounded up to multiples of 32.
    In Triton a backward pass takes, while it runs, ``2 L M N D`` numbers of the type of h, and of fp32
    ``L M N D / 32``, ``2 M N D`` where rows are wide (fp32, or more than 64 features), and for sums that programs share
    at most ``4 L`` tiles of 64 by ``64 + 2 r`` per multiprocessor. A forward pass over wide rows (fp32, more than 128
    features, or more than 64 and a rank above 32) takes ``M N D`` of the type of h and, without gradients,
    ``(L - 1) M N D`` of fp32. In CUDA C++ a backward pass takes ``2 L M N D`` numbers of the type of h, and of fp32
    ``M N D`` where L > 1, ``2 L D`` per multiprocessor, and for shared sums as much as Triton.

    Args:
        h: ``[*, N, D]``, any leading dims and strides.
        norm_weights: L tensors ``[D]``, the weights of the RMSNorms.
        weights, biases: L tensors ``[D, D]`` and ``[D]``, shared by all nodes; biases may be None.
        As, Bs: L tensors ``[P, D, r]`` and ``[P, r, D]``, one pair per adapter; r may differ between layers.
        alpha: plain multiplier of the low-rank paths.
        eps: of the RMSNorm. negative_slope: of the leaky ReLU, at least 0.
        dropout_p, seed, node_index, backend: see :func:`stlora_kernels.nall`. Each layer has its own mask.

    Returns:
        ``[*, N, D]`` in the dtype of ``h`` (of autocast where that is on).

    Raises:
        InputError: for shapes, dtypes, devices or ranges that do not fit, before anything is computed.

    Source: ST-LoRA, arXiv 2404.07919, eq. (3).
    """
    parameters = [list(t) for t in (norm_weights, weights, () if biases is None else biases, As, Bs)]
    if inputs.autocast_is_on(h):
        device_type = h.device.type
        h = inputs.autocast(h, device_type)
        parameters = [[inputs.autocast(t, device_type) for t in tensors] for tensors in parameters]
    _check(h, parameters, alpha, eps, dropout_p, seed, negative_slope, node_index)
    flat = [t for tensors in parameters for t in tensors]
    rank = max(A.shape[2] for A in parameters[3])
    sizes = (h.shape[-1], len(parameters[1]))
    name = dispatch.choose("nsp_stack", backend, h.device.type, inputs.why_not, sizes, rank, h, *flat)
    if dropout_p > 0 and seed is None:
        seed = philox.draw_seed()
    if name == "reference":
        if node_index is not None and not torch.compiler.is_compiling():
            inputs.check_range(node_index, parameters[3][0].shape[0])
        norms, ws, bs, As, Bs = parameters
        return reference.nsp_stack(h, norms, ws, bs, As, Bs, alpha, eps, negative_slope, dropout_p, seed, node_index)
    options = (alpha, eps, negative_slope, dropout_p, name)
    direct = dispatch.plain(h, seed, node_index, *flat)
    if inputs.needs_grad(h, *flat):
        counts = [len(tensors) for tensors in parameters]
        return dispatch.apply(_NspStack, direct, direct, counts, options, seed, node_index, h, *flat)[0]
    return _run(direct, h, False, *parameters, seed, node_index, *options)[0]


def _run(direct: bool, *arguments: Any) -> tuple[Tensor, Tensor]:
    return (_forward if direct else torch.ops.stlora.nsp_stack)(*arguments)


def _check(
    h: Tensor,
    parameters: list[list[Tensor]],
    alpha: float,
    eps: float,
    dropout_p: float,
    seed: Tensor | None,
    negative_slope: float,
    node_index: Tensor | None,
) -> None:
    norm_weights, weights, biases, As, Bs = parameters
    depth = len(weights)
    if depth == 0:
        raise InputError("weights: got no layer, expected at least one")
    for name, tensors in (("norm_weights", norm_weights), ("As", As), ("Bs", Bs), ("biases", biases)):
        if len(tensors) != depth and not (name == "biases" and not tensors):
            raise InputError(f"{name}: got {len(tensors)} tensors, expected {depth}, one per layer")
    for layer in range(depth):
        inputs.check(
            h, weights[layer], biases[layer] if biases else None, As[layer], Bs[layer],
            alpha, dropout_p, seed, None, negative_slope, node_index, layer,
        )  # fmt: skip
        D, norm_weight = h.shape[-1], norm_weights[layer]
        if not isinstance(norm_weight, Tensor) or norm_weight.layout != torch.strided:
            got = norm_weight.layout if isinstance(norm_weight, Tensor) else f"a {type(norm_weight).__name__}"
            raise InputError(f"norm_weights[{layer}]: got {got}, expected a strided tensor")
        if norm_weight.shape != (D,) or norm_weight.dtype != h.dtype or norm_weight.device != h.device:
            raise InputError(
                f"norm_weights[{layer}]: got {norm_weight.dtype} {list(norm_weight.shape)} on {norm_weight.device}, "
                f"expected {h.dtype} [{D}] on {h.device}"
            )
        if weights[layer].shape != (D, D):
            raise InputError(f"weights[{layer}]: got shape {list(weights[layer].shape)}, expected [{D}, {D}]")
        if As[layer].shape[0] != As[0].shape[0]:
            raise InputError(f"As[{layer}]: got {As[layer].shape[0]} adapters, expected {As[0].shape[0]} as in As[0]")
    inputs.check_number("eps", eps, 0)


_PROBLEM = (
    "Tensor[] norm_weights, Tensor[] weights, Tensor[] biases, Tensor[] As, Tensor[] Bs, Tensor? seed, "
    "Tensor? node_index, float alpha, float eps, float negative_slope, float dropout_p, str backend"
)
_library = torch.library.Library("stlora", "FRAGMENT")
_library.define(f"nsp_stack(Tensor h, bool save, {_PROBLEM}) -> (Tensor, Tensor)")
_library.define(f"nsp_stack_backward(Tensor grad, Tensor saved, bool[] needs, Tensor h, {_PROBLEM}) -> Tensor[]")


@torch.library.impl(_library, "nsp_stack", "CompositeExplicitAutograd")
def _forward(*args):
    return dispatch.kernels("nsp", args[-1]).forward(*args[:-1])


def _backward(*args):
    return dispatch.kernels("nsp", args[-1]).backward(*args[:-1])


@torch.library.impl(_library, "nsp_stack_backward", "CompositeExplicitAutograd")
def _backward_operator(*args):
    gradients = [args[0].new_empty(0) if g is None else g for g in _backward(*args)]  # an operator returns tensors
    return gradients


@torch.library.register_fake("stlora::nsp_stack", lib=_library)
def _forward_fake(h, save, norm_weights, *_):
    y = torch.empty_like(h, memory_format=torch.contiguous_format)
    return y, cpu.saved_like(h, len(norm_weights) if save else 1)


@torch.library.register_fake("stlora::nsp_stack_backward", lib=_library)
def _backward_fake(grad, saved, needs, h, *problem):
    inputs = [h, *(t for tensors in problem[:5] for t in tensors)]
    return [
        torch.empty_like(t, memory_format=torch.contiguous_format) if needed else t.new_empty(0)
        for t, needed in zip(inputs, needs, strict=True)
    ]


def _by_parameter(counts: list[int], flat: Sequence[Tensor]) -> list[list[Tensor]]:
    tensors = iter(flat)
    return [[next(tensors) for _ in range(count)] for count in counts]


class _NspStack(torch.autograd.Function):
    @staticmethod
    def forward(direct, counts, options, seed, node_index, h, *flat):
        return _run(direct, h, True, *_by_parameter(counts, flat), seed, node_index, *options)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.counts, ctx.options, seed, node_index, h, *flat = inputs
        _, saved = output
        ctx.mark_non_differentiable(saved)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(saved, seed, node_index, h, *flat)

    @staticmethod
    @dispatch.once_differentiable
    def backward(ctx, grad, _):
        saved, seed, node_index, h, *flat = ctx.saved_tensors
        needs = ctx.needs_input_grad[5:]
        if grad is None:
            return (None,) * (5 + len(needs))
        problem = (grad, saved, needs, h, *_by_parameter(ctx.counts, flat), seed, node_index, *ctx.options)
        if dispatch.plain(grad, saved, seed, node_index, h, *flat):
            gradients = _backward(*problem)
        else:
            gradients = dispatch.needed(torch.ops.stlora.nsp_stack_backward(*problem), needs)
        return None, None, None, None, None, *gradients
