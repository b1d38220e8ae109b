"""STGCN: gated convolutions over time around Chebyshev convolutions over the graph."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlora_kernels.backbones.graph import GraphProduct, required_graph, scaled_laplacian
from stlora_kernels.backbones.registry import register
from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_input_features, check_probability, check_signal, check_sizes, check_widths


class Align(nn.Module):
    """Bring ``[..., c_in]`` to ``[..., c_out]`` for a residual: a linear map narrows, zeros widen."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.extra = c_out - c_in
        self.map = nn.Linear(c_in, c_out)
        # The published model owns this map even where it pads and never applies it. It is kept for the
        # published parameter count, and left out of training so that no parameter waits for a gradient (DDP).
        self.map.requires_grad_(self.extra < 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.extra < 0:
            return self.map(x)
        return F.pad(x, (0, self.extra)) if self.extra else x


class TemporalConv(nn.Module):
    r"""Gated causal convolution over time: ``(P + align(x)) * sigmoid(Q)``, ``[P || Q] = conv(x)``.

    Unpadded: ``[B, T, N, c_in] -> [B, T - kernel_size + 1, N, c_out]``, the last steps aligned.
    """

    def __init__(self, c_in: int, c_out: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.align = Align(c_in, c_out)
        self.conv = nn.Conv2d(c_in, 2 * c_out, (kernel_size, 1))

    def forward(self, x: Tensor) -> Tensor:
        # Conv2d has channels second; x seen that way is channels_last, torch's fast layout, without a copy.
        pq = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # [B, T', N, 2*c_out]
        p, q = pq.chunk(2, dim=-1)
        return (p + self.align(x[:, self.kernel_size - 1 :])) * torch.sigmoid(q)  # [B, T', N, c_out]


class ChebGraphConv(nn.Module):
    r"""Chebyshev graph convolution with a residual.

    .. math:: y = x' + b + \sum_{k < K_s} T_k(\tilde L) \, x' \, \Theta_k, \quad
              T_0 = I, \; T_1 = \tilde L, \; T_k = 2 \tilde L T_{k-1} - T_{k-2}, \quad x' = \mathrm{align}(x)

    Shapes: ``[B, T, N, c_in] -> [B, T, N, c_out]``.
    """

    def __init__(self, c_in: int, c_out: int, order: int) -> None:
        super().__init__()
        self.align = Align(c_in, c_out)
        self.weight = nn.Parameter(torch.empty(order, c_out, c_out))  # Theta
        self.bias = nn.Parameter(torch.empty(c_out))
        # As published, where torch takes c_out * c_out for the fan-in of this shape.
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.uniform_(self.bias, -1 / c_out, 1 / c_out)

    def forward(self, x: Tensor, shift: GraphProduct) -> Tensor:
        x = self.align(x).permute(2, 0, 1, 3).contiguous()  # [N, B, T, c_out], as graph products want it
        terms = [x]
        for k in range(1, len(self.weight)):
            terms.append(shift(x) if k == 1 else 2 * shift(terms[-1]) - terms[-2])
        y = x + torch.cat(terms, dim=-1) @ self.weight.flatten(0, 1) + self.bias
        return y.permute(1, 2, 0, 3)  # [B, T, N, c_out]


class STConvBlock(nn.Module):
    """Time, graph, time, then LayerNorm over nodes and channels, and dropout.

    Shapes: ``[B, T, N, c_in] -> [B, T - 2 * (Kt - 1), N, channels[2]]``.
    """

    def __init__(
        self, num_nodes: int, c_in: int, channels: tuple[int, int, int], Kt: int, Ks: int, dropout: float
    ) -> None:
        super().__init__()
        first, bottleneck, last = channels
        self.conv1 = TemporalConv(c_in, first, Kt)
        self.graph_conv = ChebGraphConv(first, bottleneck, Ks)
        self.conv2 = TemporalConv(bottleneck, last, Kt)
        self.norm = nn.LayerNorm([num_nodes, last], eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, shift: GraphProduct) -> Tensor:
        h = self.conv1(x)  # [B, T - Kt + 1, N, first]
        h = torch.relu(self.graph_conv(h, shift))  # [B, T - Kt + 1, N, bottleneck]
        h = self.conv2(h)  # [B, T - 2*(Kt - 1), N, last]
        return self.dropout(self.norm(h))


@register("stgcn")
class STGCN(nn.Module):
    r"""Spatio-temporal graph convolutional network, Chebyshev variant.

    Two blocks (time, graph, time, norm), a gated convolution over the steps that are left, and two linear
    layers that write the whole horizon. 227,084 parameters on PEMS08 (N = 170, horizon 12), 14,784 of them in
    maps that the published model owns but never uses (:class:`Align` says why they are kept).

    Args:
        num_nodes: N. out_features: out. window: T steps, more than ``4 * (Kt - 1)``. horizon: H steps.
        in_features: F, of which the model reads the first ``input_features``.
        adjacency: ``[N, N]``, see :func:`~stlora_kernels.backbones.graph.scaled_laplacian`.
        steps_per_day: not used.
        input_features: 1 as published: the measured value without the time of day.
        Kt: steps of the temporal convolutions. Ks: terms of the Chebyshev polynomial.
        channels: of each block's three convolutions. head: of the output block.
        dropout: after each block and before the last layer, while training.

    Shapes: ``[B, T, N, F] -> [B, H, N, out]``.

    Raises:
        InputError: for sizes, ranges, a graph, a window or input shapes that do not fit.

    Source: Yu et al., IJCAI 2018; architecture, norms and initial values as in hazdzz/STGCN (cheb_graph_conv,
    glu, sym_norm_lap).
    """

    def __init__(
        self,
        num_nodes: int,
        in_features: int,
        out_features: int,
        window: int,
        horizon: int,
        adjacency: Tensor | None = None,
        steps_per_day: int | None = None,
        *,
        input_features: int = 1,
        Kt: int = 3,
        Ks: int = 3,
        channels: tuple[int, int, int] = (64, 16, 64),
        head: tuple[int, int] = (128, 128),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon, Kt=Kt, Ks=Ks)
        check_input_features(input_features, in_features)
        check_widths("channels", channels, 3)
        check_widths("head", head, 2)
        check_probability("dropout", dropout)
        steps_left = window - 4 * (Kt - 1)
        if steps_left < 1:
            raise InputError(f"window: got {window} steps, expected at least {4 * (Kt - 1) + 1} for stgcn with Kt={Kt}")
        graph = required_graph("stgcn", adjacency, num_nodes)
        self.window, self.horizon, self.num_nodes = window, horizon, num_nodes
        self.in_features, self.input_features = in_features, input_features

        self.shift = GraphProduct(scaled_laplacian(graph))
        self.blocks = nn.ModuleList(
            STConvBlock(num_nodes, c_in, channels, Kt, Ks, dropout) for c_in in (input_features, channels[-1])
        )
        self.conv = TemporalConv(channels[-1], head[0], steps_left)
        self.norm = nn.LayerNorm([num_nodes, head[0]], eps=1e-12)
        self.head = nn.Sequential(
            nn.Linear(head[0], head[1]),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(head[1], horizon * out_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_signal("x", x, self.window, self.num_nodes, self.in_features, self.norm.weight)
        h = x[..., : self.input_features]  # [B, T, N, input_features]
        for block in self.blocks:
            h = block(h, self.shift)  # [B, T - 2*(Kt - 1), N, 64], then [B, T - 4*(Kt - 1), N, 64]
        h = self.norm(self.conv(h)).squeeze(1)  # [B, N, 128]
        return self.head(h).unflatten(-1, (self.horizon, -1)).transpose(1, 2)  # [B, H, N, out]
