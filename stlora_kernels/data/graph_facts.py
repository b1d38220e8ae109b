"""What a graph looks like, in numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stlora_kernels.errors import require


@dataclass(frozen=True)
class GraphFacts:
    """Counts of an adjacency matrix.

    nodes: N. nonzeros: entries that are not 0, self_loops: those of them on the diagonal. symmetric: whether every
    edge has the same weight both ways. isolated: indices of the nodes without an edge to or from another one.
    components: parts that no edge joins, directions aside; an isolated node is one.
    """

    nodes: int
    nonzeros: int
    self_loops: int
    symmetric: bool
    isolated: tuple[int, ...]
    components: int

    @property
    def edges(self) -> int:
        """Edges between two different nodes, each counted once if the graph is symmetric."""
        directed = self.nonzeros - self.self_loops
        return directed // 2 if self.symmetric else directed

    def __str__(self) -> str:
        kind = "undirected" if self.symmetric else "directed"
        return f"{self.nodes} nodes, {self.edges} {kind} edges, {len(self.isolated)} isolated"


def graph_facts(adjacency: np.ndarray) -> GraphFacts:
    """Count the edges of an adjacency matrix ``[N, N]``; a NaN is an edge."""
    sources, targets = adjacency.nonzero()
    nodes, loops = len(adjacency), sources == targets
    degree = np.bincount(sources[~loops], minlength=nodes) + np.bincount(targets[~loops], minlength=nodes)
    sparse: Any = require("scipy.sparse", "train")
    edges = sparse.coo_array((np.ones(len(sources), dtype=bool), (sources, targets)), shape=adjacency.shape)
    components, _ = require("scipy.sparse.csgraph", "train").connected_components(edges, directed=False)
    return GraphFacts(
        nodes=nodes,
        nonzeros=len(sources),
        self_loops=int(loops.sum()),
        symmetric=bool((adjacency[sources, targets] == adjacency[targets, sources]).all()),
        isolated=tuple(np.flatnonzero(degree == 0).tolist()),
        components=int(components),
    )
