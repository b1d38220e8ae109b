"""``NALL`` in plain PyTorch and ``FusedNALL`` on the fused kernels: the same parameters, the same numbers."""

import copy
import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from stlora_kernels.nn.checks import check_choice, check_probability, check_sizes
from stlora_kernels.ops import backends
from stlora_kernels.ops.inputs import ACTIVATIONS, check_number
from stlora_kernels.ops.nall import nall

FACTORS = ("node", "node_b", "core", "shared")


class NALL(nn.Module):
    r"""Node-adaptive low-rank layer in plain PyTorch.

    .. math:: y_{m,n} = \mathrm{act}(W x_{m,n} + b + \alpha A_n (B_n \, \mathrm{dropout}(x_{m,n})))

    ``W`` and ``b`` start as in ``nn.Linear``, ``lora_B`` Kaiming-uniform and the last factor zero, so that a new
    layer equals the shared linear layer.

    Args:
        num_nodes: N. in_features: I. out_features: O. rank: r.
        alpha: plain multiplier of the low-rank path.
        dropout: on the input of the low-rank path only, while training.
        bias: whether there is a shared ``b``.
        activation: None, "relu" or "leaky_relu" (with ``negative_slope``).
        factor: what each node owns: "node" A_n and B_n; "node_b" B_n, with A shared; "core" an ``r x r`` core
            between shared A and B; "shared" nothing (plain LoRA).
        freeze_base: W is not trained (b is).

    Shapes:
        input ``[*, N, I]``, output ``[*, N, O]``. Parameters: ``weight [O, I]``, ``bias [O]``,
        ``lora_A [N or 1, O, r]``, ``lora_B [N or 1, r, I]``, and ``lora_core [N, r, r]`` with factor "core".

    Raises:
        InputError: for sizes below 1, ranges or names that do not fit.

    Example::

        layer = NALL(num_nodes=207, in_features=64, out_features=12)
        layer(torch.randn(8, 207, 64)).shape  # [8, 207, 12]

    Source: ST-LoRA, arXiv 2404.07919, eq. (2).
    """

    # Plain PyTorch whatever is installed; FusedNALL makes this the caller's choice.
    backend: str | None = "reference"

    def __init__(
        self,
        num_nodes: int,
        in_features: int,
        out_features: int,
        rank: int = 16,
        *,
        alpha: float = 1.0,
        dropout: float = 0.0,
        bias: bool = True,
        activation: str | None = None,
        negative_slope: float = 0.1,
        factor: str = "node",
        freeze_base: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features, rank=rank)
        check_probability("dropout", dropout)
        check_choice("factor", factor, FACTORS)
        check_choice("activation", activation, (None, *ACTIVATIONS))
        check_number("alpha", alpha, -math.inf, expected="a number")
        check_number("negative_slope", negative_slope, 0)
        self.num_nodes, self.in_features, self.out_features, self.rank = (
            num_nodes,
            in_features,
            out_features,
            rank,
        )
        self.alpha, self.dropout, self.factor = alpha, dropout, factor
        self.activation, self.negative_slope = activation, negative_slope

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.weight = parameter(out_features, in_features)
        self.bias = parameter(out_features) if bias else None
        self.lora_A = parameter(num_nodes if factor == "node" else 1, out_features, rank)
        self.lora_B = parameter(num_nodes if factor in ("node", "node_b") else 1, rank, in_features)
        self.lora_core = parameter(num_nodes, rank, rank) if factor == "core" else None
        self.weight.requires_grad_(not freeze_base)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W, b and B anew and make the low-rank path zero."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)  # nn.Linear's Kaiming-uniform(a=sqrt(5))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        nn.init.uniform_(self.lora_B, -bound, bound)
        if self.lora_core is None:
            nn.init.zeros_(self.lora_A)
        else:  # the zero stands in the core, so that what differs between nodes learns from the first step
            nn.init.uniform_(self.lora_A, -1 / math.sqrt(self.rank), 1 / math.sqrt(self.rank))
            nn.init.zeros_(self.lora_core)

    def factors(self) -> tuple[Tensor, Tensor]:
        """``A [N, O, r]`` and ``B [N, r, I]`` as the nodes see them, whatever ``factor`` shares."""
        A, B = local(self.lora_A), local(self.lora_B)
        if self.factor == "node":
            return A, B
        A = A if self.lora_core is None else A @ local(self.lora_core)
        return A.expand(self.num_nodes, -1, -1), B.expand(self.num_nodes, -1, -1)

    def forward(self, x: Tensor, node_index: Tensor | None = None) -> Tensor:
        """``[*, N, I] -> [*, N, O]``; ``node_index [N_x]`` picks the adapter of each node slot of a sub-graph."""
        A, B = self.factors()
        return nall(
            x,
            self.weight,
            self.bias,
            A,
            B,
            self.alpha,
            dropout_p=self.dropout if self.training else 0.0,
            activation=self.activation,
            negative_slope=self.negative_slope,
            node_index=node_index,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        parts = [f"num_nodes={self.num_nodes}, in_features={self.in_features}, out_features={self.out_features}"]
        parts += [f"rank={self.rank}, alpha={self.alpha}, factor={self.factor!r}, bias={self.bias is not None}"]
        if self.dropout:
            parts.append(f"dropout={self.dropout}")
        if self.activation:
            parts.append(f"activation={self.activation!r}")
        return ", ".join(parts)


class FusedNALL(NALL):
    """:class:`NALL` on the fused kernels: same arguments, parameters, ``state_dict``, initial values and numbers.

    Args:
        backend: one of :func:`stlora_kernels.available_backends`; the fastest that covers each call if None.
        Otherwise as :class:`NALL`.
    """

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = None if backend is None else backends.known(backend)

    @classmethod
    def sharing(cls, layer: NALL, backend: str | None = None) -> "FusedNALL":
        """A fused layer that holds the very parameters (and hooks) of ``layer``."""
        fused = cls.__new__(cls)
        fused.__dict__ = {k: copy.copy(v) if isinstance(v, dict) else v for k, v in layer.__dict__.items()}
        fused.backend = None if backend is None else backends.known(backend)
        return fused


def fuse(model: nn.Module, backend: str | None = None) -> nn.Module:
    """Swap every :class:`NALL` inside ``model`` for a :class:`FusedNALL` that shares its parameters.

    The model is changed in place and returned; where ``model`` is itself a NALL, the fused layer is returned.
    Subclasses of NALL are left alone: what they changed would be lost.
    """
    if type(model) is NALL:
        return FusedNALL.sharing(model, backend)
    fused: dict[NALL, FusedNALL] = {}  # a layer used in two places stays one layer
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if type(child) is NALL:
                module._modules[name] = fused.setdefault(child, FusedNALL.sharing(child, backend))
    return model


def local(parameter: Tensor) -> Tensor:
    """What of a parameter lies in this process: all of it, unless ``sharding.shard_nodes`` divided it."""
    return cast(Tensor, parameter.to_local()) if hasattr(parameter, "to_local") else parameter
