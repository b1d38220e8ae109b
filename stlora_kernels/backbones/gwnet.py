"""Graph WaveNet: gated dilated convolutions over time, each followed by diffusion over given and learnt graphs."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlora_kernels.backbones.graph import GraphProduct, check_memory, dense_product, double_transition, required_graph
from stlora_kernels.backbones.registry import register
from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_choice, check_input_features, check_probability, check_signal, check_sizes

# Inside, nodes come first, [N, T, B, C]: a graph product is then one matrix product over [N, T*B*C], without a copy.


class AdaptiveAdjacency(nn.Module):
    r"""A graph learnt from two embeddings per node: ``A = softmax(relu(E1 E2^T))``, ``[N, N]``, rows summing to 1.

    Gives ``A^T``, which the diffusion multiplies by.

    Raises:
        InputError: when built on or moved to a device without memory for :attr:`COPIES` matrices ``[N, N]``.
    """

    COPIES = 4  # at the peak of a training step: relu's result, A^T, its gradient, and one more that is added to it

    def __init__(self, num_nodes: int, embedding: int) -> None:
        super().__init__()
        self.E1 = nn.Parameter(torch.randn(num_nodes, embedding))
        self.E2 = nn.Parameter(torch.randn(num_nodes, embedding))
        self.check_memory()

    def check_memory(self) -> None:
        N, device = len(self.E1), self.E1.device
        what = f"num_nodes: the adaptive adjacency ({self.COPIES} matrices of {N} x {N}; adaptive=False has none)"
        check_memory(what, self.COPIES * N * N * self.E1.element_size(), device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AdaptiveAdjacency":
        super()._apply(fn, recurse)
        self.check_memory()  # on the device it was moved to
        return self

    def forward(self) -> Tensor:
        # Transposed from the start: the gradients of a transposed view would not be added in place, a fifth copy.
        return torch.softmax(torch.relu(self.E2 @ self.E1.T), dim=0)


class GatedTemporalConv(nn.Module):
    r"""Gated causal convolution over steps ``dilation`` apart: ``tanh(P) * sigmoid(Q)``, ``[P || Q] = conv(x)``.

    Unpadded: ``[N, T, B, c_in] -> [N, T - dilation * (kernel_size - 1), B, c_out]``, the last steps aligned.
    """

    def __init__(self, c_in: int, c_out: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, 2 * c_out, (kernel_size, 1), dilation=(dilation, 1))

    def forward(self, x: Tensor) -> Tensor:
        # Conv2d has channels second; x seen that way is channels_last, torch's fast layout, without a copy.
        pq = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # [N, T', B, 2*c_out]
        p, q = pq.chunk(2, dim=-1)
        return torch.tanh(p) * torch.sigmoid(q)  # [N, T', B, c_out]


class DiffusionConv(nn.Module):
    r"""Graph convolution along several graphs, then dropout.

    .. math:: y = b + x W_0 + \sum_s \sum_{k=1}^{K} (P_s^T)^k \, x \, W_{s,k}

    ``P_s^T`` hands on what a node has to the nodes it points to. That is what the authors' code computes; their
    paper writes ``P_s``.

    Shapes: ``[N, T, B, c_in] -> [N, T, B, c_out]``; ``products`` maps ``x`` to ``P_s^T x``, one for each graph.
    """

    def __init__(self, c_in: int, c_out: int, graphs: int, order: int, dropout: float) -> None:
        super().__init__()
        self.order = order
        self.weight = nn.Parameter(torch.empty(1 + graphs * order, c_in, c_out))  # W_0, then graph by graph
        self.bias = nn.Parameter(torch.empty(c_out))
        self.dropout = nn.Dropout(dropout)
        # As published: torch's default for one linear map of all terms side by side.
        bound = (len(self.weight) * c_in) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, products: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        weights = iter(self.weight)
        y = x @ next(weights) + self.bias  # [N, T, B, c_out]
        for product in products:
            diffused = x
            for _ in range(self.order):
                diffused = product(diffused)  # [N, T, B, c_in]
                y = y + diffused @ next(weights)
        return self.dropout(y)


class Layer(nn.Module):
    """Time, graph, residual, BatchNorm; what leaves through the skip connection is taken before the graph.

    The last layer's graph convolution and norm are never read, nor are the residual maps, which stand in for the
    graph convolution where there is none. The published model owns both. They are kept for the published parameter
    count, and left out of training so that no parameter waits for a gradient (DDP).

    Shapes: ``[N, T, B, C] -> [N, T', B, C]`` and ``[N, B, skip]``, ``T' = T - dilation * (kernel_size - 1)``.
    """

    def __init__(self, conv: GatedTemporalConv, graph_conv: DiffusionConv, skip: int, is_last: bool) -> None:
        super().__init__()
        inner, outer = graph_conv.weight.shape[1:]
        self.is_last = is_last
        self.conv = conv
        self.skip = nn.Linear(inner, skip)
        self.residual = nn.Linear(inner, outer).requires_grad_(False)
        self.graph_conv = graph_conv.requires_grad_(not is_last)
        self.norm = nn.BatchNorm2d(outer).requires_grad_(not is_last)

    def forward(self, x: Tensor, products: Sequence[Callable[[Tensor], Tensor]]) -> tuple[Tensor, Tensor]:
        h = self.conv(x)  # [N, T', B, inner]
        # The forecast reads the sum of all layers' skips at the last step only.
        skip = self.skip(h[:, -1])  # [N, B, skip]
        if self.is_last:
            return h, skip
        h = self.graph_conv(h, products) + x[:, -h.shape[1] :]  # [N, T', B, C]
        return self.norm(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), skip


@register("gwnet")
class GraphWaveNet(nn.Module):
    r"""Graph WaveNet with double transition and adaptive adjacency.

    Diffusion along the edges (P_f = D_out^-1 A), against them (P_b = D_in^-1 A^T) and along a learnt graph
    softmax(relu(E1 E2^T)). Blocks of layers whose dilation doubles from 1 on; the window is padded with zeros in
    front, up to the receptive field of ``1 + blocks * (kernel_size - 1) * (2^layers - 1)`` steps (13).

    309,400 parameters on METR-LA (N = 207, horizon 12), 15,712 of them in maps that the published model owns but
    never uses (:class:`Layer` says why they are kept). The learnt graph takes memory for 4 matrices ``[N, N]``
    while training, 16 N^2 bytes in float32: 12 MB at N = 883, 160 GB at 100,000. Given graphs of at least 100 nodes
    and at most 5 % edges are stored and multiplied sparse.

    Args:
        num_nodes: N. out_features: out. window: T steps, at most the receptive field. horizon: H steps.
        in_features: F, of which the model reads the first ``input_features``.
        adjacency: ``[N, N]``, see :func:`~stlora_kernels.backbones.graph.transition`; None: the learnt graph only.
        steps_per_day: not used.
        input_features: 2 as published: the measured value and the time of day.
        blocks: how often the dilation starts again at 1. layers: of each block.
        kernel_size: steps of the temporal convolutions. order: steps of the diffusion.
        residual_channels, dilation_channels, skip_channels, end_channels: between layers, after the gate, of the
            skip connections, of the hidden output layer.
        adaptive: learn a graph. embedding: features of each of its two embeddings of a node.
        dropout: after each graph convolution, while training.

    Shapes: ``[B, T, N, F] -> [B, H, N, out]``.

    Raises:
        InputError: for sizes, ranges, a graph, a window or input shapes that do not fit, or when built on or moved
            to a device without memory for the learnt graph.

    Source: Wu et al., IJCAI 2019; architecture and initial values as in nnzhan/Graph-WaveNet (doubletransition,
    addaptadj, randomadj).
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
        input_features: int = 2,
        blocks: int = 4,
        layers: int = 2,
        kernel_size: int = 2,
        order: int = 2,
        residual_channels: int = 32,
        dilation_channels: int = 32,
        skip_channels: int = 256,
        end_channels: int = 512,
        adaptive: bool = True,
        embedding: int = 10,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon)
        check_input_features(input_features, in_features)
        check_sizes(blocks=blocks, layers=layers, kernel_size=kernel_size, order=order, embedding=embedding)
        check_sizes(residual_channels=residual_channels, dilation_channels=dilation_channels)
        check_sizes(skip_channels=skip_channels, end_channels=end_channels)
        check_probability("dropout", dropout)
        check_choice("adaptive", adaptive, (True, False))
        if blocks * layers < 2:
            raise InputError("layers: got 1 layer in 1 block, expected at least 2 in all: the last one reads no graph")
        receptive_field = 1 + blocks * (kernel_size - 1) * (2**layers - 1)
        if window > receptive_field:
            sizes = f"blocks={blocks}, layers={layers}, kernel_size={kernel_size}"
            raise InputError(f"window: got {window} steps, expected at most {receptive_field} for gwnet with {sizes}")
        if adjacency is not None or not adaptive:
            adjacency = required_graph("gwnet with adaptive=False", adjacency, num_nodes)
        self.window, self.horizon, self.num_nodes = window, horizon, num_nodes
        self.in_features, self.input_features = in_features, input_features
        self.padding = receptive_field - window

        self.adaptive = AdaptiveAdjacency(num_nodes, embedding) if adaptive else None
        transitions = () if adjacency is None else double_transition(adjacency)  # P_f, P_b
        self.graphs = nn.ModuleList(GraphProduct(P.T) for P in transitions)
        self.start = nn.Linear(input_features, residual_channels)
        self.layers = nn.ModuleList(
            Layer(
                GatedTemporalConv(residual_channels, dilation_channels, kernel_size, 2 ** (i % layers)),
                DiffusionConv(dilation_channels, residual_channels, len(transitions) + adaptive, order, dropout),
                skip_channels,
                is_last=i == blocks * layers - 1,
            )
            for i in range(blocks * layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Linear(skip_channels, end_channels),
            nn.ReLU(),
            nn.Linear(end_channels, horizon * out_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_signal("x", x, self.window, self.num_nodes, self.in_features, self.start.weight)
        products: list[Callable[[Tensor], Tensor]] = list(self.graphs)
        if self.adaptive is not None:
            products.append(partial(dense_product, self.adaptive()))  # [N, N]
        h = x[..., : self.input_features].permute(2, 1, 0, 3)  # [N, T, B, input_features]
        h = self.start(F.pad(h, (0, 0, 0, 0, self.padding, 0)))  # [N, 13, B, 32]
        skips: list[Tensor] = []
        for layer in self.layers:
            h, skip = layer(h, products)  # [N, 12 .. 1, B, 32], [N, B, 256]
            skips.append(skip)
        y = self.head(sum(skips))  # [N, B, H*out]
        return y.unflatten(-1, (self.horizon, -1)).permute(1, 2, 0, 3)  # [B, H, N, out]
