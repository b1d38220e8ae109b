"""STAEformer: plain self-attention over time and over nodes, on learned embeddings of time and place."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlora_kernels.backbones.registry import register
from stlora_kernels.backbones.times import DAYS_PER_WEEK, calendar_indices, required_steps_per_day
from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_probability, check_signal, check_sizes


class SelfAttention(nn.Module):
    r"""Multi-head self-attention along the second last axis, without mask.

    .. math:: y = \Big[ \big\Vert_{i} \; \mathrm{softmax}\big(Q_i K_i^\top / \sqrt{d}\big) \, V_i \Big] W_O + b_O, \quad
              [Q \Vert K \Vert V] = x \, W + b

    where head i has d = C / heads of the C columns of Q, K and V.

    Shapes: ``[B, S, L, C] -> [B, S, L, C]``; the L positions of each of the S sequences attend to each other.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        S, d = x.shape[1], self.head_width
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, d)).permute(3, 0, 1, 4, 2, 5)  # [3, B, S, heads, L, d]
        # The published 38 columns of a head keep a GPU from its fused kernels, which never store the [L, L] scores:
        # they want multiples of 8. Columns of zeros change neither q.k nor the columns of v that are kept.
        qkv = F.pad(qkv, (0, -d % 8))  # [3, B, S, heads, L, d']
        # Sequences count as heads and not as batch entries, of which those kernels take 65,535 (B * N can be more).
        q, k, v = qkv.flatten(2, 3)  # each [B, S*heads, L, d']
        y = F.scaled_dot_product_attention(q, k, v, scale=d**-0.5)  # [B, S*heads, L, d']
        y = y.unflatten(1, (S, self.heads))[..., :d].transpose(2, 3)  # [B, S, L, heads, d]
        return self.out(y.flatten(3))  # [B, S, L, C]


class TransformerLayer(nn.Module):
    r"""One transformer layer with its norms after the residuals, along the second last axis.

    .. math:: h = \mathrm{norm}(x + \mathrm{attention}(x)), \quad y = \mathrm{norm}(h + W_2 \, \mathrm{relu}(W_1 h))

    with dropout on both branches. Shapes: ``[B, S, L, C] -> [B, S, L, C]``.
    """

    def __init__(self, width: int, feed_forward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, feed_forward), nn.ReLU(), nn.Linear(feed_forward, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x + self.dropout(self.attention(x)))
        return self.norm2(h + self.dropout(self.feed_forward(h)))


@register("staeformer")
class STAEformer(nn.Module):
    r"""Spatio-temporal adaptive embedding transformer; it does without the graph.

    .. math:: Z = W_f x \;\Vert\; E_{tod}[\mathrm{step}] \;\Vert\; E_{dow}[\mathrm{day}] \;\Vert\; E_a

    with a learned vector ``E_a`` for every node at every step of the window; then layers of attention among the steps
    of each node, layers of attention among the nodes of each step, and one linear map from all steps of a node to its
    whole horizon. 1,223,460 parameters on PEMS08 (N = 170, window and horizon 12, 3 input features).

    The first three features are the value, the time of day and the day of the week, the latter two as the fractions
    of :class:`~stlora_kernels.data.windows.Batch`, which
    :func:`~stlora_kernels.backbones.times.step_index` turns back into indices. For bfloat16 use ``torch.autocast``
    and leave x in float32: an x in bfloat16 is refused from 256 steps a day on.

    Attention among the nodes takes time in proportion to N^2, but no such memory: torch's fused kernels never store
    its ``[B, T, heads, N, N]`` weights, and so no N is refused. Where torch has no fused kernel (float64 on a GPU, some
    devices), training keeps these weights for every layer: 2.2 GiB each for N = 883, B = 16 in float32.

    Args:
        num_nodes: N. in_features: F, at least 3. out_features: out. window: T steps. horizon: H steps.
        adjacency: not used.
        steps_per_day: of the data: 288 for steps of 5 minutes, 96 for 15 minutes.
        input_embedding, time_embedding, day_embedding, adaptive_embedding: widths of the four parts of Z.
        feed_forward: hidden width of every layer. heads: of every attention; their number divides the width of Z.
        layers: over time, and as many over nodes.
        dropout: on both branches of every layer, while training.

    Shapes: ``[B, T, N, F] -> [B, H, N, out]``.

    Raises:
        InputError: for sizes, ranges, input shapes, dtypes or times that do not fit, or without ``steps_per_day``.

    Source: Liu et al., CIKM 2023; architecture and initial values as in XDZhelheim/STAEformer (mixed projection).
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
        input_embedding: int = 24,
        time_embedding: int = 24,
        day_embedding: int = 24,
        adaptive_embedding: int = 80,
        feed_forward: int = 256,
        heads: int = 4,
        layers: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon, feed_forward=feed_forward, heads=heads, layers=layers)
        check_sizes(input_embedding=input_embedding, time_embedding=time_embedding)
        check_sizes(day_embedding=day_embedding, adaptive_embedding=adaptive_embedding)
        check_probability("dropout", dropout)
        if in_features < 3:
            raise InputError(f"in_features: got {in_features}, expected at least 3: value, time of day, day of week")
        steps_per_day = required_steps_per_day("staeformer", steps_per_day)
        width = input_embedding + time_embedding + day_embedding + adaptive_embedding
        if width % heads:
            raise InputError(f"heads: got {heads}, expected a divisor of {width}, the sum of the embeddings")
        self.window, self.horizon, self.num_nodes = window, horizon, num_nodes
        self.in_features, self.steps_per_day = in_features, steps_per_day

        self.embed_input = nn.Linear(in_features, input_embedding)
        self.embed_time = nn.Embedding(steps_per_day, time_embedding)
        self.embed_day = nn.Embedding(DAYS_PER_WEEK, day_embedding)
        self.adaptive = nn.Parameter(torch.empty(window, num_nodes, adaptive_embedding))  # E_a
        # As published, where torch takes N * adaptive_embedding for the fan-in of this shape.
        nn.init.xavier_uniform_(self.adaptive)

        def stack() -> nn.ModuleList:
            return nn.ModuleList(TransformerLayer(width, feed_forward, heads, dropout) for _ in range(layers))

        self.over_time, self.over_nodes = stack(), stack()
        self.head = nn.Linear(window * width, horizon * out_features)

    def forward(self, x: Tensor) -> Tensor:
        check_signal("x", x, self.window, self.num_nodes, self.in_features, self.adaptive)
        Z = self.embed(x).transpose(1, 2)  # [B, N, T, C]
        for layer in self.over_time:
            Z = layer(Z)
        Z = Z.transpose(1, 2)  # [B, T, N, C]
        for layer in self.over_nodes:
            Z = layer(Z)
        y = self.head(Z.transpose(1, 2).flatten(2))  # [B, N, H*out]
        return y.unflatten(-1, (self.horizon, -1)).transpose(1, 2)  # [B, H, N, out]

    def embed(self, x: Tensor) -> Tensor:
        """Z, what the attention works on: ``[B, T, N, F] -> [B, T, N, C]``."""
        time, day = calendar_indices(x, self.steps_per_day)  # [B, T, N] each
        # As published, the input map reads the day of the week as 0 .. 6 and the time of day as a fraction.
        features = torch.cat([x[..., :2], DAYS_PER_WEEK * x[..., 2:3], x[..., 3:]], dim=-1)  # [B, T, N, F]
        adaptive = self.adaptive.expand(len(x), -1, -1, -1)  # [B, T, N, adaptive_embedding]
        return torch.cat([self.embed_input(features), self.embed_time(time), self.embed_day(day), adaptive], dim=-1)
