"""Graphs as the backbones use them: checked and normalised weights, products, and the memory they take."""

import os
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlora_kernels.errors import InputError

# Where the sparse product was measured to win, forward and backward, on the CPU (torch 2.13, one thread, 3,584
# columns): 2.4 times at 100 nodes and 3 % edges, 5 at 500 and 3 %, 10 at 883 and 1 %; level at 20 %.
# The line is drawn well below that, as dense products gain more from a GPU.
SPARSE_NODES = 100
SPARSE_DENSITY = 0.05


def dense_graph(adjacency: Tensor) -> Tensor:
    """A dense constant of what may be sparse in any layout, want gradients, or be an array or nested lists."""
    A = torch.as_tensor(adjacency).detach()
    return A if A.layout == torch.strided else A.to_dense()


def graph_weights(adjacency: Tensor) -> Tensor:
    """``adjacency`` in float64, checked.

    Raises:
        InputError: unless it is ``[N, N]`` with finite weights of at least 0.
    """
    A = dense_graph(adjacency).double()
    if A.dim() != 2 or A.shape[0] != A.shape[1]:
        raise InputError(f"adjacency: got shape {list(A.shape)}, expected [N, N]")
    if not torch.isfinite(A).all() or (A < 0).any():
        raise InputError("adjacency: got negative or non-finite weights, expected finite weights of at least 0")
    return A


def required_graph(model: str, adjacency: Tensor | None, num_nodes: int) -> Tensor:
    """``adjacency`` as a tensor, which ``model`` cannot do without.

    Raises:
        InputError: if there is none, or it is not ``[num_nodes, num_nodes]``.
    """
    expected = f"[{num_nodes}, {num_nodes}]"
    if adjacency is None:
        raise InputError(f"adjacency: got None, expected the graph {expected} that {model} reads")
    A = dense_graph(adjacency)
    if tuple(A.shape) != (num_nodes, num_nodes):
        raise InputError(f"adjacency: got shape {list(A.shape)}, expected {expected}")
    return A


def transition(adjacency: Tensor) -> Tensor:
    r"""The transition matrix of a random walk along the edges.

    .. math:: P = D^{-1} A, \quad D = \mathrm{diag}(\textstyle\sum_j A_{ij})

    A node without edges has a row of zeros.

    Args:
        adjacency: ``[N, N]``, entry ``[i, j]`` the weight of the edge from i to j, with or without self-loops.

    Returns:
        ``[N, N]`` in torch's default dtype, computed in float64.

    Raises:
        InputError: for another shape, negative or non-finite weights.
    """
    A = graph_weights(adjacency)
    degree = A.sum(dim=1, keepdim=True)  # [N, 1]
    return (A / torch.where(degree > 0, degree, 1.0)).to(torch.get_default_dtype())


def double_transition(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    r"""The random walks along the edges and against them.

    .. math:: P_f = D_{out}^{-1} A, \quad P_b = D_{in}^{-1} A^T

    Arguments, results and errors as of :func:`transition`. Source: Li et al., ICLR 2018 (DCRNN's dual_random_walk).
    """
    A = dense_graph(adjacency)
    return transition(A), transition(A.mT)


def symmetric_normalised(adjacency: Tensor) -> Tensor:
    r"""The undirected graph, each edge divided by the roots of the degrees of its two ends.

    .. math:: S = D^{-1/2} A' D^{-1/2}, \quad A' = \max(A, A^T), \quad D = \mathrm{diag}(\textstyle\sum_j A'_{ij})

    Its spectrum lies in [-1, 1]. A node without edges has zeros. Kipf and Welling's GCN reads that of A + I.

    Args:
        adjacency: ``[N, N]``, weights of at least 0, directed or not, with or without self-loops.

    Returns:
        ``[N, N]`` in torch's default dtype, computed in float64.

    Raises:
        InputError: for another shape, negative or non-finite weights.
    """
    return _symmetric(adjacency).to(torch.get_default_dtype())


def _symmetric(adjacency: Tensor) -> Tensor:
    A = graph_weights(adjacency)
    A = torch.maximum(A, A.T)
    degree = A.sum(dim=1)  # [N]
    scale = torch.where(degree > 0, degree, torch.inf).rsqrt()
    return scale[:, None] * A * scale


def scaled_laplacian(adjacency: Tensor) -> Tensor:
    r"""STGCN's graph shift operator: the symmetric normalised Laplacian, scaled to a spectrum in [-1, 1].

    .. math:: L = I - S, \quad \tilde L = 2 L / \lambda_{max}(L) - I

    with S, the arguments and the errors of :func:`symmetric_normalised`. Finding lambda takes time in N^3.

    Returns:
        ``[N, N]`` in torch's default dtype, computed in float64.
    """
    S = _symmetric(adjacency)
    identity = torch.eye(len(S), dtype=S.dtype, device=S.device)
    L = identity - S
    # L = 0 where every node's only edge is its self-loop; the floor keeps 0 / 0 out.
    largest = torch.linalg.eigvalsh(L)[-1].clamp(min=1e-6)
    return (2 * L / largest - identity).to(torch.get_default_dtype())


def dense_product(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix [N, N]`` times ``x [N, ...]``, over the nodes."""
    return (matrix @ x.flatten(1)).view_as(x)


class GraphProduct(nn.Module):
    """``matrix [N, N]`` times ``x [N, ...]`` over the nodes, for a constant matrix; sparse where that is faster.

    The sparse product reads compressed rows with ``embedding_bag``: node i is a bag that sums its sources, weighted.
    That is 1.5 to 2 times as fast as torch's CSR product on the CPU, and torch.compile traces it.
    """

    matrix: Tensor
    sources: Tensor
    starts: Tensor
    weights: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        N = len(matrix)
        targets, sources = matrix.nonzero(as_tuple=True)  # [edges] each, sorted by target
        self.sparse = N >= SPARSE_NODES and len(sources) <= SPARSE_DENSITY * N * N
        # Not in the state_dict: the graph comes with the data.
        if self.sparse:
            counts = torch.bincount(targets, minlength=N)
            self.register_buffer("sources", sources, persistent=False)
            self.register_buffer("starts", F.pad(counts.cumsum(0), (1, 0)), persistent=False)  # [N + 1]
            self.register_buffer("weights", matrix[targets, sources], persistent=False)
        else:
            self.register_buffer("matrix", matrix.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.sparse:
            return dense_product(self.matrix, x)
        y = F.embedding_bag(
            self.sources,
            x.flatten(1),
            self.starts,
            mode="sum",
            per_sample_weights=self.weights.to(x.dtype),  # autocast, which this operator does not take part in
            include_last_offset=True,
        )
        return y.view_as(x)


def available_memory(device: torch.device) -> int:
    """Bytes that tensors on ``device`` can have at most; ``sys.maxsize`` where there is no telling.

    A GPU: what is free, and what torch keeps for reuse. The CPU: the machine's memory, a bound that is never too low;
    what is free at the moment leaves out all that merely caches files. Limits set on a container do not count.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu" or "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):  # Windows has no sysconf
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(what: str, needed: int, device: torch.device) -> None:
    """Refuse what cannot fit before the system ends the process for it.

    Raises:
        InputError: if ``needed`` bytes for ``what`` are more than the device has.
    """
    available = available_memory(device)
    if needed > available:
        raise InputError(
            f"{what}: needs {needed / 1e9:.1f} GB, expected at most the {available / 1e9:.1f} GB of {device}"
        )
