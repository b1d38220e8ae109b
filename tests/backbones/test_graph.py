"""Transition matrices, graph products and the memory that graphs are held against."""

import copy
import os
import pickle
import sys

import numpy as np
import pytest
import torch

from stlora_kernels.backbones.graph import (
    GraphProduct,
    available_memory,
    check_memory,
    double_transition,
    graph_weights,
    scaled_laplacian,
    symmetric_normalised,
    transition,
)
from stlora_kernels.errors import InputError

SMALL, LARGE = 6, 120


def random_graph(num_nodes, density):
    """Directed, weighted, some nodes without edges."""
    return torch.rand(num_nodes, num_nodes) * (torch.rand(num_nodes, num_nodes) < density)


def one_row(num_nodes):
    A = torch.zeros(num_nodes, num_nodes)
    A[-1, :3] = 1.0
    return A


GRAPHS = {
    "small-and-sparse": (lambda: random_graph(SMALL, 0.05), False),
    "small": (lambda: random_graph(SMALL, 0.5), False),
    "large-and-sparse": (lambda: random_graph(LARGE, 0.03), True),
    "large-and-dense": (lambda: random_graph(LARGE, 0.2), False),
    "large-without-edges": (lambda: torch.zeros(LARGE, LARGE), True),
    "large-with-edges-of-one-node": (lambda: one_row(LARGE), True),
}
graphs = pytest.mark.parametrize("graph", GRAPHS)


@graphs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_transition_equals_a_numpy_implementation(graph, dtype):
    A = GRAPHS[graph][0]().to(dtype)
    P = transition(A).numpy()
    expected = np.zeros(A.shape)
    for i, row in enumerate(A.double().numpy()):
        if row.sum() > 0:
            expected[i] = row / row.sum()
    np.testing.assert_allclose(P, expected, atol=1e-12)
    assert P.dtype == np.float64


@graphs
def test_double_transition_walks_along_the_edges_and_against_them(graph):
    A = GRAPHS[graph][0]()
    along, against = double_transition(A.to_sparse())
    out_degree, in_degree = A.double().sum(dim=1), A.double().sum(dim=0)
    assert torch.equal(along, torch.where(out_degree > 0, A.double().T / out_degree, 0.0).T)
    assert torch.equal(against, torch.where(in_degree > 0, A.double() / in_degree, 0.0).T)


@graphs
def test_symmetric_normalisation_equals_a_numpy_implementation(graph):
    A = GRAPHS[graph][0]()
    undirected = np.maximum(A.double().numpy(), A.double().numpy().T)
    degree = undirected.sum(axis=1)
    expected = np.zeros_like(undirected)
    for i, j in np.argwhere(undirected):
        expected[i, j] = undirected[i, j] / np.sqrt(degree[i] * degree[j])
    S = symmetric_normalised(A).numpy()
    np.testing.assert_allclose(S, expected, atol=1e-12)
    assert np.abs(np.linalg.eigvalsh(S)).max() <= 1 + 1e-12


@graphs
@pytest.mark.parametrize("shape", [(3,), (2, 1, 4)], ids=["vectors", "steps-and-channels"])
def test_product_and_its_gradient_are_those_of_the_dense_matrix(graph, shape):
    build, is_sparse = GRAPHS[graph]
    matrix = build()
    product = GraphProduct(matrix)
    assert product.sparse == is_sparse
    x = torch.randn(len(matrix), *shape, requires_grad=True)
    weight = torch.randn(len(matrix), *shape)
    y = product(x)
    torch.testing.assert_close(y, torch.tensordot(matrix, x, dims=1))
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    torch.testing.assert_close(gradient, torch.tensordot(matrix.T, weight, dims=1))


@pytest.mark.parametrize("density", [0.03, 0.2], ids=["sparse", "dense"])
class TestProduct:
    """What holds for both ways to multiply."""

    def test_takes_a_transposed_view(self, density):
        matrix, x = random_graph(LARGE, density), torch.randn(LARGE, 3)
        torch.testing.assert_close(GraphProduct(matrix.T)(x), matrix.T @ x)

    def test_gradcheck(self, density):
        product = GraphProduct(random_graph(LARGE, density))
        assert torch.autograd.gradcheck(product, torch.randn(LARGE, 2, requires_grad=True), fast_mode=True)

    def test_compiles_in_one_graph(self, density):
        product, x = GraphProduct(random_graph(LARGE, density)), torch.randn(LARGE, 2, requires_grad=True)
        y = torch.compile(product, fullgraph=True, backend="aot_eager")(x)
        torch.testing.assert_close(y, product(x))
        y.sum().backward()
        torch.testing.assert_close(x.grad, torch.autograd.grad(product(x).sum(), x)[0])

    def test_runs_under_autocast(self, density):
        product, x = GraphProduct(random_graph(LARGE, density)).float(), torch.randn(LARGE, 4).float()
        with torch.autocast("cpu", torch.bfloat16):
            y = product(x.bfloat16())
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), product(x), atol=0.1, rtol=0.05)

    def test_follows_its_module_copies_and_pickles(self, density):
        product, x = GraphProduct(random_graph(LARGE, density)), torch.randn(LARGE, 2)
        assert not product.state_dict()
        for clone in (copy.deepcopy(product), pickle.loads(pickle.dumps(product))):
            assert torch.equal(clone(x), product(x))
        assert product.float()(x.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (torch.ones(3), r"adjacency: got shape \[3\], expected \[N, N\]"),
        (torch.ones(3, 2), r"adjacency: got shape \[3, 2\], expected \[N, N\]"),
        (-torch.ones(3, 3), r"adjacency: got negative or non-finite weights"),
        (torch.full((3, 3), torch.inf), r"adjacency: got negative or non-finite weights"),
    ],
    ids=["vector", "oblong", "negative", "infinite"],
)
def test_what_is_no_graph_is_named(adjacency, message):
    for function in (graph_weights, transition, double_transition, symmetric_normalised, scaled_laplacian):
        with pytest.raises(InputError, match=message):
            function(adjacency)


def test_memory_of_the_cpu_is_the_machines_where_it_tells(monkeypatch):
    cpu = torch.device("cpu")
    assert 2**28 < available_memory(cpu) < 2**50
    check_memory("a graph", available_memory(cpu), cpu)
    with pytest.raises(InputError, match=r"a graph: needs 1152921504.6 GB, expected at most the \d+\.\d GB of cpu"):
        check_memory("a graph", 2**60, cpu)
    monkeypatch.delattr(os, "sysconf_names")  # as on Windows
    check_memory("a graph", 2**60, cpu)


def test_memory_that_torch_holds_unused_is_available_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert available_memory(torch.device("cuda:0")) == 130


def test_memory_of_other_devices_is_not_known():
    assert available_memory(torch.device("meta")) == sys.maxsize
