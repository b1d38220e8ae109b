"""STGCN with Chebyshev graph convolutions."""

import numpy as np
import pytest
import torch
from backbone_cases import GRAPHS, N, graphs, random_graph, signal
from torch import nn

from stlora_kernels.backbones import STGCN
from stlora_kernels.backbones.graph import GraphProduct, scaled_laplacian
from stlora_kernels.backbones.stgcn import Align, ChebGraphConv, TemporalConv
from stlora_kernels.data import load_dataset
from stlora_kernels.errors import InputError

F, T, H = 3, 12, 12


def make(adjacency=None, *, num_nodes=N, window=T, horizon=H, in_features=F, out_features=1, **own):
    if adjacency is None:
        adjacency = random_graph(num_nodes)
    return STGCN(num_nodes, in_features, out_features, window, horizon, adjacency, 288, **own)


@pytest.mark.parametrize(
    ("num_nodes", "published"),
    [(207, 246_028), (325, 306_444), (358, 323_340), (307, 297_228), (883, 592_140), (170, 227_084)],
    ids=["METR-LA", "PEMS-BAY", "PEMS03", "PEMS04", "PEMS07", "PEMS08"],
)
def test_has_the_published_number_of_parameters(num_nodes, published, monkeypatch):
    # No parameter depends on the graph, and the spectrum of 883 nodes takes its time on a busy machine.
    monkeypatch.setattr("stlora_kernels.backbones.stgcn.scaled_laplacian", lambda adjacency: adjacency)
    model = make(torch.zeros(num_nodes, num_nodes), num_nodes=num_nodes)
    assert sum(p.numel() for p in model.parameters()) == published


def test_what_is_not_trained_is_what_the_published_model_never_applies():
    model = make()
    untrained = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    widening = [m for m in model.modules() if isinstance(m, Align) and m.extra >= 0]
    assert sum(untrained.values()) == sum(p.numel() for m in widening for p in m.parameters()) == 14_784
    x = signal()
    before = model.eval()(x)
    with torch.no_grad():
        for align in widening:
            for p in align.parameters():
                p.fill_(torch.nan)
    assert torch.equal(model(x), before)


def numpy_laplacian(A):
    A = A.double().numpy()
    A = np.where(A > A.T, A, A.T)
    degree = A.sum(axis=1)
    L = np.eye(len(A))
    for i in range(len(A)):
        for j in range(len(A)):
            if A[i, j] > 0:
                L[i, j] -= A[i, j] / np.sqrt(degree[i] * degree[j])
    largest = np.linalg.norm(L, 2)
    return 2 * L / max(largest, 1e-6) - np.eye(len(A))


@graphs
def test_graph_shift_operator_equals_a_numpy_implementation(graph):
    A = GRAPHS[graph]()
    gso = scaled_laplacian(A).numpy()
    np.testing.assert_allclose(gso, numpy_laplacian(A), atol=1e-10)
    np.testing.assert_allclose(gso, gso.T, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(gso)
    assert eigenvalues.min() >= -1 - 1e-10
    assert eigenvalues.max() <= 1 + 1e-10


@pytest.mark.parametrize("order", [1, 2, 3, 4], ids="Ks{}".format)
@pytest.mark.parametrize("channels", [(5, 3), (3, 5), (4, 4)], ids=["narrow", "widen", "same"])
@pytest.mark.parametrize("large", [False, True], ids=["dense", "sparse"])
def test_chebyshev_convolution_equals_a_numpy_implementation(order, channels, large):
    conv = ChebGraphConv(*channels, order)
    gso = scaled_laplacian(random_graph(120, 0.01) if large else random_graph())
    shift = GraphProduct(gso)
    assert shift.sparse == large
    x = torch.randn(2, 3, len(gso), channels[0])
    y = conv(x, shift).detach().numpy()

    # T_k(L) through the spectrum: T_k(cos a) = cos(k a).
    eigenvalues, U = np.linalg.eigh(gso.numpy())
    angle = np.arccos(np.clip(eigenvalues, -1, 1))
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    narrowed = x.numpy()
    if channels[0] > channels[1]:
        narrowed = narrowed @ conv.align.map.weight.detach().numpy().T + conv.align.map.bias.detach().numpy()
    else:
        narrowed = np.pad(narrowed, [(0, 0)] * 3 + [(0, channels[1] - channels[0])])
    for b in range(2):
        for t in range(3):
            expected = narrowed[b, t] + bias
            for k in range(order):
                expected = expected + (U * np.cos(k * angle)) @ U.T @ narrowed[b, t] @ weight[k]
            np.testing.assert_allclose(y[b, t], expected, atol=1e-6)


@pytest.mark.parametrize("channels", [(5, 3), (3, 5)], ids=["narrow", "widen"])
def test_temporal_convolution_equals_a_numpy_implementation(channels):
    c_in, c_out = channels
    conv = TemporalConv(c_in, c_out, 3)
    x = torch.randn(2, 7, N, c_in)
    y = conv(x).detach().numpy()
    weight, bias = conv.conv.weight.detach().numpy()[..., 0], conv.conv.bias.detach().numpy()
    assert y.shape == (2, 5, N, c_out)
    values = x.numpy()
    for t in range(5):
        pq = sum(values[:, t + j] @ weight[:, :, j].T for j in range(3)) + bias
        residual = conv.align(x[:, t + 2]).detach().numpy()
        expected = (pq[..., :c_out] + residual) / (1 + np.exp(-pq[..., c_out:]))
        np.testing.assert_allclose(y[:, t], expected, atol=1e-10)


def test_temporal_convolution_sees_no_future():
    conv = TemporalConv(4, 4, 3)
    x = torch.randn(2, 9, N, 4)
    for step in range(9):
        later = x.clone()
        later[:, step] += 1.0
        changed = (conv(later) != conv(x)).any(dim=3).any(dim=2).any(dim=0)
        # Output i stands for input step i + 2: nothing before `step` may move.
        assert not changed[: max(step - 2, 0)].any()
        assert changed[max(step - 2, 0) : step + 1].all()


def test_alignment_pads_where_channels_grow_and_maps_where_they_shrink():
    x = torch.randn(2, N, 3)
    assert torch.equal(Align(3, 5)(x), torch.cat([x, torch.zeros(2, N, 2)], dim=-1))
    assert torch.equal(Align(3, 3)(x), x)
    narrow = Align(3, 2)
    torch.testing.assert_close(narrow(x), nn.functional.linear(x, narrow.map.weight, narrow.map.bias))


def test_neighbours_are_heard_and_far_nodes_are_not():
    """Along a path of nodes one block of Ks = 3 reaches two edges; LayerNorm, which sees all, is left out."""
    path = torch.diag(torch.ones(N - 1), 1)
    conv, shift = ChebGraphConv(2, 2, 3), GraphProduct(scaled_laplacian(path))
    x = torch.randn(1, 1, N, 2)
    nudged = x.clone()
    nudged[:, :, 0] += 1.0
    changed = (conv(nudged, shift) - conv(x, shift)).abs().amax(dim=(0, 1, 3)) > 1e-12
    assert changed.tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("name", ["METR-LA", "PEMS08"], ids=["directed-with-self-loops", "binary"])
def test_graph_shift_operator_of_a_measured_road_graph(name, real_data):
    adjacency = torch.from_numpy(load_dataset(name, real_data).adjacency)
    np.testing.assert_allclose(scaled_laplacian(adjacency).numpy(), numpy_laplacian(adjacency), atol=1e-10)


def test_reads_the_value_and_not_the_time_of_day_unless_asked():
    x = signal()
    other_time = x.clone()
    other_time[..., 1:] += 1.0
    plain, timed = make().eval(), make(input_features=3).eval()
    assert torch.equal(plain(x), plain(other_time))
    assert not torch.equal(timed(x), timed(other_time))


def test_a_window_too_short_is_named_with_what_makes_it_so():
    with pytest.raises(InputError, match=r"window: got 8 steps, expected at least 9 for stgcn with Kt=3"):
        make(window=8)
