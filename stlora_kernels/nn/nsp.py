"""The node-specific predictor: a convolution over time, a residual stack of node-adaptive layers, a head."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_choice, check_probability, check_signal, check_sizes
from stlora_kernels.nn.nall import FACTORS, NALL, FusedNALL
from stlora_kernels.ops.nsp import nsp_stack

if TYPE_CHECKING:
    from stlora_kernels.nn.sharding import NodeShards

TEMPORAL = ("fold", "step")


def joined_size(temporal: str, in_features: int, forecast_features: int, window: int, horizon: int) -> int:
    """How many features :func:`join` yields per node (fold) or per node and step (step).

    Raises:
        InputError: for another ``temporal``, and for "step" where window and horizon differ.
    """
    check_choice("temporal", temporal, TEMPORAL)
    if temporal == "step" and window != horizon:
        raise InputError(f"temporal: got 'step' with window {window} and horizon {horizon}, expected them to be equal")
    if temporal == "fold":
        return window * in_features + horizon * forecast_features
    return in_features + forecast_features


def join(temporal: str, x: Tensor, forecast: Tensor | None) -> Tensor:
    """``[x || forecast]`` of ``[B, T, N, F]`` and ``[B, H, N, Ff]`` in the form node-wise layers read."""
    parts = [x] if forecast is None else [x, forecast]
    if temporal == "fold":
        parts = [part.transpose(1, 2).flatten(2) for part in parts]  # [B, N, T*F], [B, N, H*Ff]
    return torch.cat(parts, dim=-1)  # fold [B, N, T*F + H*Ff], step [B, T, N, F + Ff]


def as_forecast(temporal: str, y: Tensor, horizon: int) -> Tensor:
    """What a node-wise layer wrote, as a forecast: fold ``[B, N, H*out]``, step ``[B, H, N, out]``."""
    if temporal == "fold":
        y = y.unflatten(-1, (horizon, -1)).transpose(1, 2)
    return y  # [B, H, N, out]


class NSPLayer(nn.Module):
    r"""One residual layer of eq. (3).

    .. math:: h' = h + \mathrm{NALL}(\sigma(h)), \quad
              \sigma = \mathrm{Dropout} \circ \mathrm{LeakyReLU} \circ \mathrm{RMSNorm}

    Args:
        nall: the layer's NALL, as wide out as in; ``RMSNorm`` takes its width from it.
        dropout: probability of the dropout in sigma, while training.
        negative_slope: of the LeakyReLU.
        eps: of the RMSNorm.

    Shapes: ``[*, N, hidden] -> [*, N, hidden]``.
    """

    def __init__(self, nall: NALL, *, dropout: float, negative_slope: float, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(nall.in_features, eps=eps)
        self.nall = nall
        self.dropout, self.negative_slope, self.eps = dropout, negative_slope, eps

    def forward(self, h: Tensor) -> Tensor:
        if self.fusible:
            return residual_stack([self], h)
        sigma = F.leaky_relu(self.norm(h), self.negative_slope)
        return h + self.nall(F.dropout(sigma, self.dropout, self.training))  # [*, N, hidden]

    @property
    def fusible(self) -> bool:
        """Do the modules inside do just what the fused operation does, unseen by hooks and parametrisations?"""
        plain = type(self) is NSPLayer and type(self.norm) is nn.RMSNorm and type(self.nall) in (NALL, FusedNALL)
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        watched = any(getattr(m, name) for m in (self, self.norm, self.nall) for name in hooks)
        return plain and not watched and not self.nall.dropout and self.nall.activation is None

    def settings(self) -> tuple[object, ...]:
        """What layers must have in common to be one fused call."""
        nall = self.nall
        return nall.alpha, nall.bias is None, nall.backend, self.eps, self.negative_slope, self.dropout, self.training


def run_layers(layers: Sequence[NSPLayer], h: Tensor) -> Tensor:
    """Layer after layer, in one fused call where they allow it: ``[*, N, hidden] -> [*, N, hidden]``."""
    if all(layer.fusible and layer.settings() == layers[0].settings() for layer in layers):
        return residual_stack(layers, h)
    for layer in layers:
        h = layer(h)
    return h


def residual_stack(layers: Sequence[NSPLayer], h: Tensor) -> Tensor:
    """Fusible layers of equal settings in one call, on the backend of their NALLs."""
    first = layers[0]
    factors = [layer.nall.factors() for layer in layers]
    biases = [layer.nall.bias for layer in layers if layer.nall.bias is not None]
    return nsp_stack(
        h,
        [layer.norm.weight for layer in layers],
        [layer.nall.weight for layer in layers],
        biases or None,
        [A for A, _ in factors],
        [B for _, B in factors],
        first.nall.alpha,
        eps=first.eps,
        negative_slope=first.negative_slope,
        dropout_p=first.dropout if first.training else 0.0,
        backend=first.nall.backend,
    )


class NSP(nn.Module):
    r"""Node-specific predictor: forecasts every node with layers of its own.

    .. math:: H_0 = \mathrm{Conv}([X \| Z]), \quad H_l = H_{l-1} + \mathrm{NALL}_l(\sigma(H_{l-1})), \quad
              Y = \mathrm{NALL}_{head}(H_L)

    Two readings of the paper's convolution. ``temporal="fold"``: it spans the window, one linear map of all a
    node's values to ``hidden``, and the head writes the whole horizon. ``temporal="step"``: it is
    ``kernel_size`` steps long (zero-padded at the ends), every step keeps its own ``hidden`` features, and
    the head writes that step's forecast; the window is then as long as the horizon.

    Args:
        num_nodes: N. in_features: F. out_features: out. window: T steps. horizon: H steps.
        hidden: features of ``H_l``.
        layers: L.
        rank: r of every NALL. alpha: their multiplier. factor: what each node owns (see :class:`NALL`).
        dropout: in sigma, while training. The NALLs drop nothing of their own.
        temporal: "fold" or "step".
        kernel_size: steps of the "step" convolution, odd.
        negative_slope: of the LeakyReLU in sigma.
        forecast_features: features of ``forecast``; 0 where there is none.
        fused: :class:`FusedNALL` rather than :class:`NALL`; same parameters and numbers.
        backend: of the fused layers (see :class:`FusedNALL`).

    Shapes:
        ``x [B, T, N, F]``, ``forecast [B, H, N, forecast_features]`` or None -> ``[B, H, N, out]``.

    Raises:
        InputError: for sizes, ranges, names or input shapes that do not fit.

    Example::

        nsp = NSP(num_nodes=207, in_features=3, out_features=1, window=12, horizon=12)
        nsp(torch.randn(8, 12, 207, 3)).shape  # [8, 12, 207, 1]

    Source: ST-LoRA, arXiv 2404.07919, eq. (3).
    """

    def __init__(
        self,
        num_nodes: int,
        in_features: int,
        out_features: int,
        window: int,
        horizon: int,
        *,
        hidden: int = 64,
        layers: int = 4,
        rank: int = 16,
        alpha: float = 1.0,
        dropout: float = 0.1,
        temporal: str = "fold",
        kernel_size: int = 3,
        negative_slope: float = 0.1,
        factor: str = "node",
        forecast_features: int = 0,
        fused: bool = True,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon, kernel_size=kernel_size)
        check_sizes(hidden=hidden, layers=layers, rank=rank)
        check_probability("dropout", dropout)
        check_choice("factor", factor, FACTORS)
        if forecast_features < 0:
            raise InputError(f"forecast_features: got {forecast_features}, expected at least 0")
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size: got {kernel_size}, expected an odd number of steps")
        if backend is not None and not fused:
            raise InputError(f"backend: got {backend!r} with fused=False, which is always plain PyTorch")
        self.num_nodes, self.in_features, self.forecast_features = num_nodes, in_features, forecast_features
        self.shards: NodeShards | None = None  # set by sharding.shard_nodes
        self.window, self.horizon, self.temporal = window, horizon, temporal

        nall = partial(FusedNALL, backend=backend) if fused else NALL
        width = joined_size(temporal, in_features, forecast_features, window, horizon)
        self.conv: nn.Module
        if temporal == "fold":
            self.conv = nn.Linear(width, hidden)
        else:
            self.conv = nn.Conv2d(width, hidden, (kernel_size, 1), padding=(kernel_size // 2, 0))
        self.layers = nn.ModuleList(
            NSPLayer(
                nall(num_nodes, hidden, hidden, rank, alpha=alpha, factor=factor),
                dropout=dropout,
                negative_slope=negative_slope,
            )
            for _ in range(layers)
        )
        head_size = horizon * out_features if temporal == "fold" else out_features
        self.head = nall(num_nodes, hidden, head_size, rank, alpha=alpha, factor=factor)

    def forward(self, x: Tensor, forecast: Tensor | None = None) -> Tensor:
        """Forecast from the window ``x`` and, where there is one, the forecast of the block before."""
        self._check(x, forecast)
        h = self._convolve(join(self.temporal, x, forecast))  # fold [B, N, hidden], step [B, T, N, hidden]
        if self.shards is not None:
            h = self.shards.own(h)
        y = self.head(run_layers(cast(Sequence[NSPLayer], self.layers), h))
        if self.shards is not None:
            y = self.shards.gather(y, self.num_nodes)
        return as_forecast(self.temporal, y, self.horizon)  # [B, H, N, out]

    def _convolve(self, joined: Tensor) -> Tensor:
        if self.temporal == "fold":
            return self.conv(joined)
        return self.conv(joined.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # Conv2d has channels second

    def _check(self, x: Tensor, forecast: Tensor | None) -> None:
        check_signal("x", x, self.window, self.num_nodes, self.in_features, self.head.weight)
        if (forecast is not None) != (self.forecast_features > 0):
            given = "None" if forecast is None else f"shape {list(forecast.shape)}"
            raise InputError(f"forecast: got {given}, expected {self.forecast_features} forecast features")
        if forecast is not None:
            check_signal("forecast", forecast, self.horizon, self.num_nodes, self.forecast_features, self.head.weight)
