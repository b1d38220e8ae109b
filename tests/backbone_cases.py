"""What the tests of the backbones share: graphs, windows, and models that hide nothing."""

import pytest
import torch
from torch import Tensor, nn

N = 6


def random_graph(num_nodes: int = N, density: float = 0.4) -> Tensor:
    """Directed, weighted, without self-loops."""
    weights = torch.rand(num_nodes, num_nodes)
    return weights * (torch.rand(num_nodes, num_nodes) < density) * (1 - torch.eye(num_nodes))


def undirected_binary() -> Tensor:
    A = (random_graph() > 0).double()
    return torch.maximum(A, A.T)


def with_isolated_node() -> Tensor:
    A = random_graph()
    A[2], A[:, 2] = 0, 0
    return A


GRAPHS = {
    "directed-weighted": random_graph,
    "undirected-binary": undirected_binary,
    "isolated-node": with_isolated_node,
    "no-edges": lambda: torch.zeros(N, N),
    "self-loops": lambda: random_graph() + torch.eye(N),
    "self-loops-only": lambda: torch.eye(N),
    "float32": lambda: random_graph().float(),
}
graphs = pytest.mark.parametrize("graph", GRAPHS)


def moments(batch: int = 2, window: int = 12, steps_per_day: int = 288) -> tuple[Tensor, Tensor]:
    """Step of the day and day of the week, ``[B, T]`` each, of windows that start at random moments of a week."""
    moment = torch.randint(7 * steps_per_day, (batch, 1)) + torch.arange(window)
    return moment % steps_per_day, moment // steps_per_day % 7


def signal(
    batch: int = 2,
    window: int = 12,
    num_nodes: int = N,
    in_features: int = 3,
    steps_per_day: int = 288,
    at: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Standardised values, then the calendar ``at`` some moments, then more values: ``[B, T, N, F]``."""
    x = torch.randn(batch, window, num_nodes, in_features)
    step, day = at or moments(batch, window, steps_per_day)
    x[..., 1], x[..., 2] = (step / steps_per_day).unsqueeze(2), (day / 7).unsqueeze(2)
    return x


def with_random_norms(model: nn.Module) -> nn.Module:
    """Norms as after training: no two channels or nodes alike, so that no statistic can be left out unseen."""
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return model
