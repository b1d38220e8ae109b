"""ST-LoRA: any forecasting backbone, corrected node by node behind a gate."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_choice, check_forecast, check_signal, check_sizes
from stlora_kernels.nn.nsp import NSP, as_forecast, join, joined_size

HISTORY = ("every", "from_second")


class STLoRA(nn.Module):
    r"""A backbone with K node-specific predictors behind it and a gate between the two.

    .. math::
        Y_b = \mathrm{backbone}(X), \quad Z_0 = Y_b, \quad Z_k = \mathrm{NSP}_k(\phi([X \| Z_{k-1}])), \\
        \bar Z = \tfrac{1}{K} \textstyle\sum_k Z_k, \quad R = \mathrm{sigmoid}(W_f [X \| \bar Z]), \quad
        Y = R \odot Y_b + (1 - R) \odot \bar Z

    The paper's letter, a first block that sees ``phi(Y_b)`` alone and ``phi`` = ReLU, is
    ``history="from_second", phi="relu"``.

    Args:
        backbone: any module ``[B, T, N, F] -> [B, H, N, out]``.
        num_nodes: N. in_features: F. out_features: out. window: T steps. horizon: H steps.
        blocks: K.
        layers, rank, hidden, alpha, dropout, temporal, factor, fused, backend: of every :class:`NSP`.
            The gate, too, reads a node's whole window with ``temporal="fold"``, one step with "step".
        history: which blocks read X: "every" one, or those "from_second" on.
        phi: None (the identity) or "relu", on the input of every block.
        frozen: keep the backbone as it is: its parameters are set to need no gradient, and it stays in eval mode
            (its dropout off). Otherwise backbone and adapter are trained jointly.

    Shapes:
        ``x [B, T, N, F]`` -> ``Y [B, H, N, out]``, and with ``return_gate=True`` R of the same shape.

    Raises:
        InputError: for sizes, ranges, names or shapes (of x or the backbone's forecast) that do not fit.

    Example::

        model = STLoRA(backbone, num_nodes=207, in_features=3, out_features=1, window=12, horizon=12)
        y, gate = model(torch.randn(8, 12, 207, 3), return_gate=True)  # [8, 12, 207, 1] each

    Source: ST-LoRA, arXiv 2404.07919, eq. (4).
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_nodes: int,
        in_features: int,
        out_features: int,
        window: int,
        horizon: int,
        *,
        blocks: int = 1,
        layers: int = 4,
        rank: int = 16,
        hidden: int = 64,
        alpha: float = 1.0,
        dropout: float = 0.1,
        temporal: str = "fold",
        factor: str = "node",
        history: str = "every",
        phi: str | None = None,
        frozen: bool = False,
        fused: bool = True,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise InputError(f"backbone: got a {type(backbone).__name__}, expected a torch.nn.Module")
        check_sizes(blocks=blocks)
        check_choice("history", history, HISTORY)
        check_choice("phi", phi, (None, "relu"))
        self.num_nodes, self.in_features, self.out_features = num_nodes, in_features, out_features
        self.window, self.horizon, self.temporal = window, horizon, temporal
        self.frozen = frozen

        def nsp(read_features: int, read_steps: int, forecast_features: int) -> NSP:
            return NSP(
                num_nodes,
                read_features,
                out_features,
                read_steps,
                horizon,
                hidden=hidden,
                layers=layers,
                rank=rank,
                alpha=alpha,
                dropout=dropout,
                temporal=temporal,
                factor=factor,
                forecast_features=forecast_features,
                fused=fused,
                backend=backend,
            )

        self.backbone = backbone
        self.phi: nn.Module = nn.Identity() if phi is None else nn.ReLU()
        self.blocks = nn.ModuleList(
            nsp(out_features, horizon, 0)  # reads the forecast before it in place of the history
            if history == "from_second" and k == 0
            else nsp(in_features, window, out_features)
            for k in range(blocks)
        )
        self.gate = nn.Linear(
            joined_size(temporal, in_features, out_features, window, horizon),
            horizon * out_features if temporal == "fold" else out_features,
        )
        if frozen:
            backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "STLoRA":
        """As ``nn.Module.train``, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor, return_gate: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The corrected forecast Y, with the gate R (the backbone's share in it) if asked for."""
        check_signal("x", x, self.window, self.num_nodes, self.in_features, self.gate.weight)
        base = self._base_forecast(x)  # [B, H, N, out]

        forecasts = [base]
        for block in self.blocks:
            z = self.phi(forecasts[-1])
            forecasts.append(block(self.phi(x), z) if block.forecast_features else block(z))
        mean = torch.stack(forecasts[1:]).mean(dim=0)  # [B, H, N, out]

        gate = self.gate(join(self.temporal, x, mean))
        gate = torch.sigmoid(as_forecast(self.temporal, gate, self.horizon))  # [B, H, N, out]
        y = gate * base + (1 - gate) * mean
        return (y, gate) if return_gate else y

    def _base_forecast(self, x: Tensor) -> Tensor:
        base = self.backbone(x)  # frozen, too, it hands gradients down to x; its parameters ask for none
        check_forecast(base, [x.shape[0], self.horizon, self.num_nodes, self.out_features])
        return base

    def adapter_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that the backbone does not own."""
        return (p for name, p in self.named_parameters() if not name.startswith("backbone."))

    @property
    def num_adapter_parameters(self) -> int:
        """How many parameters the adapter (blocks and gate) adds."""
        return sum(p.numel() for p in self.adapter_parameters())

    @property
    def num_backbone_parameters(self) -> int:
        """How many parameters the backbone has."""
        return sum(p.numel() for p in self.backbone.parameters())

    @property
    def overhead(self) -> float:
        """Adapter parameters per backbone parameter (1.0 = 100 %); inf for a backbone without parameters."""
        if not self.num_backbone_parameters:
            return float("inf")
        return self.num_adapter_parameters / self.num_backbone_parameters
