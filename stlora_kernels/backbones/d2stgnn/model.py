"""D2STGNN: embeddings and graphs, decoupled layers, and the forecast they add up to."""

import torch
from torch import Tensor, nn

from stlora_kernels.backbones.d2stgnn.blocks import (
    DecoupledLayer,
    DiffusionBlock,
    EstimationGate,
    InherentBlock,
    Positions,
)
from stlora_kernels.backbones.d2stgnn.graphs import DynamicGraph, powers, transitions
from stlora_kernels.backbones.graph import check_memory, required_graph
from stlora_kernels.backbones.registry import register
from stlora_kernels.backbones.times import DAYS_PER_WEEK, calendar_indices, required_steps_per_day
from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_probability, check_signal, check_sizes


@register("d2stgnn")
class D2STGNN(nn.Module):
    r"""Decoupled dynamic spatial-temporal graph neural network.

    .. math:: x^{l+1}, f^l = \mathrm{layer}_l(x^l), \quad y = W_2 \, \mathrm{relu}(W_1 \, \mathrm{relu}(\sum_l f^l))

    Each layer splits its signal with an :class:`EstimationGate` into what diffuses, over two graphs made from the
    window (:class:`DynamicGraph`) and one learned, ``softmax(relu(E_d E_u^T))``, each with its powers up to ``k_s``
    (:class:`DiffusionBlock`), and what is a node's own (:class:`InherentBlock`). A forecast state stands for ``gap``
    steps. 391,962 parameters on METR-LA (N = 207, window and horizon 12, 288 steps per day), 398,788 on PEMS04
    (N = 307, both embeddings of 12), of which 1,792 and 1,856 are in maps whose output the published model never
    uses; they are kept, for the count, and left out of training.

    Memory: training keeps ``2 (2 k_s - 1)`` matrices ``[B, N, N]`` (4 for ``k_s = 1``), which for 32 windows in
    float32 are 0.07 GiB with 307 nodes and 53 GiB with 8,600. Graphs that do not fit are refused, with the number.
    The rest of what training keeps grows with N: about 0.4 MiB per window and node.

    Args:
        num_nodes: N. out_features: out. horizon: H steps. in_features: F, which is 3.
        window: T steps, more than ``layers * (k_t - 1)``.
        adjacency: ``[N, N]``, see :func:`transitions`.
        steps_per_day: rows of the embedding of the time of day.
        layers: decoupled layers. hidden: features in them.
        k_t: steps of the convolution. k_s: powers of each transition matrix. gap: steps per forecast state.
        node_embedding, time_embedding: features; published 10 on METR-LA and PEMS08, 12 on PEMS-BAY and PEMS04.
        heads: of the attention, a divisor of ``hidden``. forecast: features of a forecast state. head: of the
            hidden output layer.
        dropout: while training.

    Shapes: ``[B, T, N, 3] -> [B, H, N, out]``; the features are the value, the time of day and the day of the week,
    both as fractions in [0, 1), which :func:`~stlora_kernels.backbones.times.step_index` turns back into indices. For
    bfloat16 use ``torch.autocast`` and leave x in float32: an x in bfloat16 is refused from 256 steps a day on.

    Raises:
        InputError: for sizes, ranges, a graph, a window, input shapes, dtypes or times that do not fit, or too little
            memory.

    Source: Shao et al., VLDB 2022 (GestaltCogTeam/D2STGNN), as first released, which is also what BasicTS measured;
    later the released code gave positions to every layer, not to the first alone. Trained with a curriculum, see
    :func:`stlora_kernels.training.curriculum.curriculum_steps`.
    """

    transitions: Tensor

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
        layers: int = 5,
        hidden: int = 32,
        k_t: int = 3,
        k_s: int = 2,
        gap: int = 3,
        node_embedding: int = 10,
        time_embedding: int = 10,
        heads: int = 4,
        forecast: int = 256,
        head: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon, layers=layers, hidden=hidden, k_t=k_t, k_s=k_s, gap=gap)
        check_sizes(node_embedding=node_embedding, time_embedding=time_embedding)
        check_sizes(heads=heads, forecast=forecast, head=head)
        check_probability("dropout", dropout)
        if in_features != 3:
            raise InputError(
                f"in_features: got {in_features}, expected 3 for d2stgnn: value, time of day, day of the week"
            )
        if window <= layers * (k_t - 1):
            raise InputError(
                f"window: got {window} steps, expected at least {layers * (k_t - 1) + 1} for d2stgnn with "
                f"layers={layers}, k_t={k_t}"
            )
        if hidden % heads:
            raise InputError(f"heads: got {heads}, expected a divisor of hidden = {hidden}")
        graph = required_graph("d2stgnn", adjacency, num_nodes)
        steps_per_day = required_steps_per_day("d2stgnn", steps_per_day)
        self.window, self.horizon, self.num_nodes = window, horizon, num_nodes
        self.gap, self.k_s, self.steps_per_day = gap, k_s, steps_per_day
        self.check_graphs(1, torch.get_default_dtype(), torch.device("cpu"))

        # Not in the state_dict: the graph comes with the data.
        self.register_buffer("transitions", transitions(graph), persistent=False)
        self.embed = nn.Linear(1, hidden)
        self.time_of_day = nn.Embedding(steps_per_day, time_embedding)  # T_D
        self.day_of_week = nn.Embedding(DAYS_PER_WEEK, time_embedding)  # T_W
        self.node_d = nn.Parameter(torch.empty(num_nodes, node_embedding))  # E_d
        self.node_u = nn.Parameter(torch.empty(num_nodes, node_embedding))  # E_u
        for table in (self.node_u, self.node_d, self.time_of_day.weight, self.day_of_week.weight):
            nn.init.xavier_uniform_(table)
        self.dynamic_graph = DynamicGraph(window, node_embedding, time_embedding, hidden, dropout)
        blocks = -(-horizon // gap)
        decoupled = [
            DecoupledLayer(
                EstimationGate(2 * (node_embedding + time_embedding)),
                DiffusionBlock(hidden, forecast, blocks, k_t, 3 * k_s, dropout),
                InherentBlock(hidden, forecast, blocks, heads, dropout),
            )
            for _ in range(layers)
        ]
        decoupled[0].inherent.positions = Positions(window + blocks, hidden, dropout)
        # Nothing reads what the last layer leaves. Kept for the published count, as in DynamicGraph.
        decoupled[-1].inherent.residual.requires_grad_(False)
        self.layers = nn.ModuleList(decoupled)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(forecast, head), nn.ReLU(), nn.Linear(head, gap * out_features))

    def check_graphs(self, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        """Raise InputError if the dynamic graphs of ``batch`` windows are more than the device holds."""
        N = self.num_nodes
        matrices = 2 * (self.k_s + max(self.k_s - 1, 1))
        what = f"num_nodes: the dynamic graphs of {batch} window(s) ({matrices} x [{batch}, {N}, {N}])"
        check_memory(what, matrices * batch * N * N * dtype.itemsize, device)

    def forward(self, x: Tensor) -> Tensor:
        check_signal("x", x, self.window, self.num_nodes, 3, self.node_d)
        if not torch.compiler.is_compiling():
            self.check_graphs(x.shape[0], x.dtype, x.device)
        values = x[..., :1]
        step, day = calendar_indices(x, self.steps_per_day)  # [B, T, N] each
        times = torch.cat([self.time_of_day(step), self.day_of_week(day)], dim=-1)  # [B, T, N, 2*c_time]
        nodes = torch.cat([self.node_u, self.node_d], dim=-1).expand(*times.shape[:2], -1, -1)
        context = torch.cat([times, nodes], dim=-1)  # [B, T, N, 2*c_time + 2*c_node]

        E = torch.stack([self.node_d, self.node_u])  # [2, N, c_node]
        dynamic = self.dynamic_graph(values.squeeze(-1), times[:, -1], E, self.transitions)  # [B, 2, N, N]
        learned = torch.softmax(torch.relu(self.node_d @ self.node_u.T), dim=-1)  # [N, N]
        supports = [S for P in (*dynamic.unbind(1), learned) for S in powers(P, self.k_s)]

        h = self.embed(values)  # [B, T, N, hidden]
        forecasts = []
        for layer in self.layers:
            h, f = layer(h, context, supports)  # k_t - 1 steps less per layer; [B, blocks, N, forecast]
            forecasts.append(f)
        y = self.head(sum(forecasts)).unflatten(-1, (self.gap, -1))  # [B, blocks, N, gap, out]
        return y.transpose(2, 3).flatten(1, 2)[:, : self.horizon]  # [B, H, N, out]
