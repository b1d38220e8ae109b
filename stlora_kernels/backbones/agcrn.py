"""AGCRN: a recurrent network whose graph and whose weights per node come from one embedding of the nodes."""

import torch
from torch import Tensor, nn

from stlora_kernels.backbones.graph import check_memory
from stlora_kernels.backbones.registry import register
from stlora_kernels.nn.checks import check_input_features, check_signal, check_sizes


def adaptive_graph(E: Tensor) -> Tensor:
    r"""The learned graph ``softmax(relu(E E^T))``, whose rows sum to 1: ``[N, d] -> [N, N]``, dense."""
    similarity = torch.relu(E @ E.T)
    # On a GPU autocast makes softmax float32: back once, not in a copy for every product that uses A.
    return torch.softmax(similarity, dim=1).type_as(similarity)


def graph_conv(x: Tensor, A: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Chebyshev graph convolution in which every node has weights of its own.

    .. math:: y_n = b_n + \sum_{k < K} (T_k(A) \, x)_n W_{k,n}, \quad
              T_0 = I, \; T_1 = A, \; T_k = 2 A T_{k-1} - T_{k-2}

    Shapes: ``x [N, B, c_in]``, ``A [N, N]``, ``weight [K, N, c_in, c_out]``, ``bias [N, 1, c_out]`` ->
    ``[N, B, c_out]``. Nodes come first, so that both products are plain matrix products without copies.
    """

    def over_edges(v: Tensor) -> Tensor:
        return (A @ v.flatten(1)).view_as(v)  # [N, B, c_in]

    terms = [x, over_edges(x)]
    for _ in range(2, len(weight)):
        terms.append(2 * over_edges(terms[-1]) - terms[-2])
    y = bias
    for term, W in zip(terms[: len(weight)], weight, strict=True):
        y = torch.baddbmm(y, term, W)  # [N, B, c_out]
    return y


class WeightsPool(nn.Module):
    r"""Weights and biases that the nodes share, mixed for each node by its embedding.

    .. math:: W_{k,n} = \sum_d E_{nd} \, \mathcal{W}_{dk}, \quad b_n = \sum_d E_{nd} \, \beta_d

    Shapes: ``E [N, d]`` -> weight ``[K, N, c_in, c_out]``, bias ``[N, 1, c_out]``.
    """

    def __init__(self, c_in: int, c_out: int, order: int, embedding: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embedding, order, c_in, c_out))
        self.bias = nn.Parameter(torch.empty(embedding, c_out))

    def forward(self, E: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("nd,dkio->knio", E, self.weight), (E @ self.bias).unsqueeze(1)


class AGCRNLayer(nn.Module):
    r"""A GRU with node-adaptive graph convolutions in place of its matrix products.

    .. math::
        [r_t \| z_t] = \mathrm{sigmoid}(\mathrm{conv}_g([x_t \| h_{t-1}])), \quad
        c_t = \tanh(\mathrm{conv}_c([x_t \| r_t \odot h_{t-1}])), \quad
        h_t = z_t \odot h_{t-1} + (1 - z_t) \odot c_t

    Shapes: ``x [T, N, B, c_in]``, ``E [N, d]``, ``A [N, N]`` -> the states ``[T, N, B, hidden]``, from ``h_0 = 0``.
    """

    def __init__(self, c_in: int, hidden: int, order: int, embedding: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = WeightsPool(c_in + hidden, 2 * hidden, order, embedding)
        self.candidate = WeightsPool(c_in + hidden, hidden, order, embedding)

    def forward(self, x: Tensor, E: Tensor, A: Tensor) -> Tensor:
        gates, candidate = self.gates(E), self.candidate(E)  # once for all steps
        h = x.new_zeros(*x.shape[1:3], self.hidden)  # [N, B, hidden]
        states = []
        for x_t in x:  # [N, B, c_in]
            rz = torch.sigmoid(graph_conv(torch.cat([x_t, h], dim=-1), A, *gates))
            r, z = rz.chunk(2, dim=-1)  # [N, B, hidden]
            c = torch.tanh(graph_conv(torch.cat([x_t, r * h], dim=-1), A, *candidate))
            h = z * h + (1 - z) * c
            states.append(h)
        return torch.stack(states)


@register("agcrn")
class AGCRN(nn.Module):
    r"""Adaptive graph convolutional recurrent network.

    .. math::
        A = \mathrm{softmax}(\mathrm{relu}(E E^T)), \quad
        h_{1..T} = \mathrm{layer}_2(\mathrm{layer}_1(x_{1..T}; E, A); E, A), \quad y = W h_T + b

    Each layer is an :class:`AGCRNLayer`, ``W`` a convolution that spans the hidden state and writes the whole
    horizon. 748,810 parameters on PEMS04 (N = 307), 150,112 on PEMS08 (N = 170, ``embedding=2``), horizon 12.

    A is dense. A training step holds at its peak 4 matrices of N x N (A and ``relu(E E^T)``, kept for the backward
    pass, and two gradients of A) and every node's weights (74,496 numbers as published, 49,344 of them in the second
    layer) with their gradients up to three times. Without gradients A stands beside one layer's weights. For 8,600
    nodes in float32 that makes 8.0 GB and 2.0 GB, whatever the batch size; the states of a batch come on top.

    Args:
        num_nodes: N. out_features: out. window: T steps. horizon: H steps.
        in_features: F, of which the model reads the first ``input_features``.
        adjacency, steps_per_day: not used; the graph is learned.
        input_features: 1 as published: the measured value without the time of day.
        embedding: numbers that describe a node, d; published are 10 on PEMS04 and 2 on PEMS08.
        hidden: of the recurrent state. layers: of the recurrent network.
        order: terms of the Chebyshev polynomial, K; 2: a node itself and its neighbours.

    Shapes: ``[B, T, N, F] -> [B, H, N, out]``.

    Raises:
        InputError: for sizes or input shapes that do not fit, and in ``forward`` for a number of nodes whose graph and
            weights do not fit into memory.

    Source: Bai et al., NeurIPS 2020; details and initial values as in LeiBAI/AGCRN, where the graph convolution has
    weights for each term of the polynomial (the paper adds I to A and has one).
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
        embedding: int = 10,
        hidden: int = 64,
        layers: int = 2,
        order: int = 2,
    ) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, in_features=in_features, out_features=out_features)
        check_sizes(window=window, horizon=horizon)
        check_input_features(input_features, in_features)
        check_sizes(embedding=embedding, hidden=hidden, layers=layers, order=order)
        self.window, self.horizon, self.num_nodes = window, horizon, num_nodes
        self.in_features, self.input_features = in_features, input_features

        self.embedding = nn.Parameter(torch.empty(num_nodes, embedding))  # E
        self.layers = nn.ModuleList(
            AGCRNLayer(hidden if i else input_features, hidden, order, embedding) for i in range(layers)
        )
        self.head = nn.Conv2d(1, horizon * out_features, (1, hidden))
        for p in self.parameters():
            # As published: pools of biases count as matrices, and the head's biases start at 0 to 1.
            nn.init.xavier_uniform_(p) if p.dim() > 1 else nn.init.uniform_(p)

    def forward(self, x: Tensor) -> Tensor:
        E = self.embedding
        check_signal("x", x, self.window, self.num_nodes, self.in_features, E)
        if not torch.compiler.is_compiling():
            self._check_memory()
        A = adaptive_graph(E)
        h = x[..., : self.input_features].permute(1, 2, 0, 3)  # [T, N, B, input_features]
        for layer in self.layers:
            h = layer(h, E, A)  # [T, N, B, hidden]
        y = self.head(h[-1].transpose(0, 1).unsqueeze(1))  # [B, H*out, N, 1]
        return y.squeeze(3).unflatten(1, (self.horizon, -1)).transpose(2, 3)  # [B, H, N, out]

    def _check_memory(self) -> None:
        """Refuse a graph that no batch size would make fit, before the system ends the process for it."""
        E, N = self.embedding, self.num_nodes
        weights = [sum(p[0].numel() for p in layer.parameters()) for layer in self.layers]  # a node's, by layer
        training = torch.is_grad_enabled() and E.requires_grad
        row = 4 * N + 2 * sum(weights) + max(weights) if training else max(2 * N, N + max(weights))
        what = f"num_nodes: agcrn's graph of {N} x {N} and weights of every node{' in training' if training else ''}"
        check_memory(what, row * N * E.element_size(), E.device)
