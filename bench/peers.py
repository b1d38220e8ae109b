"""What a user of PyTorch would write for the same numbers: each formula eager and compiled."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """The shared layer alone, which a NALL replaces."""
    return F.linear(x, weight, bias)


def einsum(x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) -> Tensor:
    low_rank = torch.einsum("mnr,nor->mno", torch.einsum("mni,nri->mnr", x, B), A)
    return F.linear(x, weight, bias) + low_rank


def bmm(x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) -> Tensor:
    low_rank = torch.bmm(torch.bmm(x.transpose(0, 1), B.transpose(1, 2)), A.transpose(1, 2))
    return F.linear(x, weight, bias) + low_rank.transpose(0, 1)


def merged(x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return torch.baddbmm(bias, x.transpose(0, 1), (weight + torch.bmm(A, B)).transpose(1, 2)).transpose(0, 1)


NALLS = (einsum, bmm, merged)


def nsp_stack_of(nall: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """L residual layers around one of the formulas above, with torch's own norm, activation and dropout."""

    def stack(h: Tensor, norm_weights, weights, biases, As, Bs, dropout_p: float) -> Tensor:
        for norm_weight, weight, bias, A, B in zip(norm_weights, weights, biases, As, Bs, strict=True):
            s = F.leaky_relu(F.rms_norm(h, norm_weight.shape, norm_weight, 1e-6), 0.1)
            h = h + nall(F.dropout(s, dropout_p), weight, bias, A, B)
        return h

    stack.__name__ = nall.__name__
    return stack


def eager_and_compiled(*functions: Callable[..., Tensor]) -> dict[str, Callable[..., Tensor]]:
    """Both forms of each function, by name."""
    return {f.__name__: f for f in functions} | {f"{f.__name__} compiled": _compiled(f) for f in functions}


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    compiled: list[Callable[..., Tensor]] = []

    def call(*args, **kwargs) -> Tensor:
        if not compiled:  # afresh: what was compiled for other shapes would count as a recompilation
            torch.compiler.reset()
            compiled.append(torch.compile(function, fullgraph=True, dynamic=False))
        return compiled[0](*args, **kwargs)

    return call
