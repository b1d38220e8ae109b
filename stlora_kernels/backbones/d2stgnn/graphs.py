"""D2STGNN's graphs: two directions of diffusion, made anew from every window, and their powers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlora_kernels.backbones.graph import double_transition

# What two nodes without an edge have of their attention: little, but more than nothing, so that every row has a sum.
NO_EDGE = 1e-7


def transitions(adjacency: Tensor) -> Tensor:
    r"""D2STGNN's two diffusion directions, along the edges and against them.

    .. math:: P_f = (D_{out}^{-1} A)^T, \quad P_b = (D_{in}^{-1} A^T)^T

    ``P[i, j]`` is what i hears of j. A node without edges in a direction has zeros there.

    Args:
        adjacency: ``[N, N]``, weights of at least 0, directed or not, with or without self-loops.

    Returns:
        ``[2, N, N]`` in torch's default dtype, computed in float64.

    Raises:
        InputError: for another shape, negative or non-finite weights.
    """
    return torch.stack([P.T for P in double_transition(adjacency)])


def powers(P: Tensor, order: int) -> list[Tensor]:
    """``P, P^2, .. P^order`` of ``[.., N, N]``, each without its diagonal: a node itself has a term of its own."""
    diagonal = torch.eye(P.shape[-1], dtype=torch.bool, device=P.device)
    raised, without_diagonal = P, [P.masked_fill(diagonal, 0.0)]
    for _ in range(1, order):
        raised = raised @ P
        without_diagonal.append(raised.masked_fill(diagonal, 0.0))
    return without_diagonal


class RowNorm(nn.BatchNorm1d):
    """BatchNorm of rows; a single one (one window of one node), which has no variance, meets the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class DynamicGraph(nn.Module):
    r"""The two transitions of this window: attention between nodes, weighted by the road graph.

    .. math:: z = W_2 \, \mathrm{BN}(\mathrm{relu}(W_1 x_{1..T})), \quad
              c_e = [z \,\|\, T_D \,\|\, T_W \,\|\, E_e], \quad
              P_e = \mathrm{softmax}(c_e W_Q (c_e W_K)^T / \sqrt d + \log(P^{road}_e + 10^{-7})), \quad e \in \{d, u\}

    The published model takes the softmax without the graph, multiplies by the graph and divides by the sums of the
    rows; that is the same, in one step and with less to keep for the backward pass.

    Shapes: values ``[B, T, N]``, times of the last step ``[B, N, 2*c_time]``, nodes ``[2, N, c_node]``,
    transitions ``[2, N, N]`` -> ``[B, 2, N, N]``, rows with sum 1.
    """

    def __init__(self, window: int, c_node: int, c_time: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.map1 = nn.Linear(window, 2 * hidden)
        self.norm = RowNorm(2 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.map2 = nn.Linear(2 * hidden, hidden)
        self.query = nn.Linear(hidden + 2 * c_time + c_node, hidden, bias=False)
        self.key = nn.Linear(hidden + 2 * c_time + c_node, hidden, bias=False)
        # The published model owns this map and never applies it. It is kept for the published parameter count,
        # and left out of training so that no parameter waits for a gradient (DDP).
        self.unused = nn.Linear(c_time, hidden).requires_grad_(False)

    def forward(self, values: Tensor, times: Tensor, nodes: Tensor, transitions: Tensor) -> Tensor:
        B, _, N = values.shape
        z = torch.relu(self.map1(values.transpose(1, 2).flatten(0, 1)))  # [B*N, 2*hidden]
        z = self.map2(self.dropout(self.norm(z))).unflatten(0, (B, N))  # [B, N, hidden]
        seen = torch.cat([z, times], dim=-1).unsqueeze(1).expand(-1, 2, -1, -1)
        c = torch.cat([seen, nodes.expand(B, -1, -1, -1)], dim=-1)  # [B, 2, N, hidden + 2*c_time + c_node]
        q, k = self.query(c), self.key(c)  # [B, 2, N, hidden]
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return torch.softmax(logits + (transitions + NO_EDGE).log(), dim=-1)  # [B, 2, N, N]
