"""What the tests of the backbones share: graphs, windows, and what is particular about each backbone."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stlora_kernels.backbones import backbone_names, build_backbone

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


@dataclass(frozen=True)
class Case:
    """What is particular about a backbone.

    All of them are equivariant: the nodes permuted, together with the graph and all that belongs to a node, give the
    forecast permuted. ``per_node`` says what belongs to a node; with none of it, and no graph, nodes are forecast
    alike, whichever they are.
    """

    small: dict[str, Any] = field(default_factory=dict)  # arguments that make it so
    tiny: dict[str, Any] = field(default_factory=dict)  # what makes it smaller yet, for gradcheck and compilation
    windows: tuple[int, int | None] = (1, None)  # the shortest and the longest, None: any
    graph: str = "unused"  # or "optional", "required"
    times: bool = False  # embeds steps of the day and days of the week, and wants to know how many steps there are
    per_node: dict[str, int] = field(default_factory=dict)  # parameters, by a part of their name: the nodes' dimension
    any_nodes: bool = False  # forecasts any number of nodes, whatever it was built for
    traced: bool = True  # by torch.compile, in one graph
    dropouts: int = 0  # places where the small one drops out, but for those inside nn.LSTM
    rejects: tuple[dict[str, Any], ...] = ()  # further arguments that are refused by name


CASES = {
    "agcrn": Case(
        small={"embedding": 4, "hidden": 5},
        tiny={"embedding": 2, "hidden": 2, "order": 3},
        per_node={"embedding": 0},
        rejects=({"input_features": 4},),
    ),
    "d2stgnn": Case(
        small={"layers": 2, "hidden": 8, "node_embedding": 3, "time_embedding": 2, "heads": 2, "forecast": 6}
        | {"head": 7},
        tiny={"hidden": 4, "k_t": 2, "gap": 1},
        windows=(5, None),  # each of the small one's layers takes away k_t - 1 steps
        graph="required",
        times=True,
        per_node={"node_": 0},
        dropouts=17,  # graph 1; in each layer 2 convolutions, states, 2 attentions (weights and output); 2 positions
        rejects=({"heads": 3}, {"in_features": 2}, {"in_features": 4}),
    ),
    "gwnet": Case(
        small={"residual_channels": 3, "dilation_channels": 4, "skip_channels": 5, "end_channels": 6, "embedding": 2},
        tiny={"residual_channels": 2, "dilation_channels": 2, "skip_channels": 2, "end_channels": 2, "blocks": 2},
        windows=(1, 13),  # the receptive field
        graph="optional",
        per_node={"adaptive": 0},
        dropouts=7,  # after every graph convolution; the last of 8 layers has none
        rejects=({"input_features": 4}, {"blocks": 1, "layers": 1, "window": 2}, {"adaptive": "no"}, {"adaptive": 2}),
    ),
    "lstm": Case(
        small={"embedding": 3, "hidden": 4, "head": 5},
        tiny={"layers": 1},
        any_nodes=True,
        traced=False,  # nn.LSTM breaks the graph
    ),
    "staeformer": Case(
        small={"input_embedding": 3, "time_embedding": 2, "day_embedding": 1, "adaptive_embedding": 6}
        | {"feed_forward": 7, "heads": 2, "layers": 2},
        tiny={"adaptive_embedding": 2, "feed_forward": 3, "layers": 1},
        times=True,
        per_node={"adaptive": 1},
        dropouts=8,  # after attention and after the feed-forward part of 4 layers
        rejects=({"heads": 5}, {"in_features": 2}),
    ),
    "stgcn": Case(
        small={"channels": (6, 3, 6), "head": (7, 8)},
        tiny={"channels": (2, 1, 2), "head": (2, 2), "Kt": 2, "window": 5},
        windows=(9, None),  # four convolutions take away Kt - 1 steps each
        graph="required",
        per_node={"norm": 0},  # LayerNorm's parameters
        dropouts=3,  # after both blocks and before the last layer
        rejects=({"input_features": 4},),
    ),
}
every_backbone = pytest.mark.parametrize("name", backbone_names())


def case_of(name: str) -> Case:
    return CASES.get(name, Case())


def make(name: str, adjacency: Tensor | None = None, **changes: Any) -> nn.Module:
    """A small one, on a graph of its own unless one is given."""
    sizes = {"num_nodes": N, "in_features": 3, "out_features": 1, "window": 12, "horizon": 4, "steps_per_day": 288}
    arguments = sizes | case_of(name).small | changes
    if adjacency is None:
        adjacency = random_graph(arguments["num_nodes"])
    return build_backbone(name, **{"adjacency": adjacency, **arguments})


def make_tiny(name: str, **changes: Any) -> tuple[nn.Module, Tensor]:
    """A tiny one, when evaluated, and windows for it."""
    arguments = {"num_nodes": 3, "window": 3, "horizon": 2, "steps_per_day": 4, **case_of(name).tiny, **changes}
    x = signal(2, arguments["window"], 3, steps_per_day=4)
    return with_random_norms(make(name, **arguments)).eval(), x
