"""D2STGNN, against an implementation in numpy that follows the published model product by product."""

import numpy as np
import pytest
import torch
from backbone_cases import GRAPHS, N, graphs, random_graph, signal, with_random_norms
from numpy_d2stgnn import (
    numpy_conv,
    numpy_dynamic_graphs,
    numpy_forecast,
    numpy_layer,
    numpy_localized,
    numpy_positions,
    numpy_transitions,
    weights_of,
)

from stlora_kernels.backbones import D2STGNN, graph
from stlora_kernels.backbones.d2stgnn.blocks import DecoupledLayer, LocalizedConv, Positions
from stlora_kernels.backbones.d2stgnn.graphs import DynamicGraph, RowNorm, powers, transitions
from stlora_kernels.errors import InputError

T, H = 12, 12
SMALL = {"hidden": 8, "node_embedding": 3, "time_embedding": 2, "heads": 2, "forecast": 6, "head": 7}


def make(adjacency=None, *, num_nodes=N, window=T, horizon=H, in_features=3, out_features=1, steps_per_day=288, **own):
    if adjacency is None:
        adjacency = random_graph(num_nodes)
    own = {**SMALL, **own}
    return D2STGNN(num_nodes, in_features, out_features, window, horizon, adjacency, steps_per_day, **own)


@pytest.mark.parametrize(
    ("num_nodes", "embedding", "published"), [(207, 10, 391_962), (307, 12, 398_788)], ids=["METR-LA", "PEMS04"]
)
def test_has_the_published_number_of_parameters(num_nodes, embedding, published):
    model = D2STGNN(
        *(num_nodes, 3, 1, 12, 12, torch.zeros(num_nodes, num_nodes), 288),
        node_embedding=embedding,
        time_embedding=embedding,
    )
    assert sum(p.numel() for p in model.parameters()) == published
    untrained = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    # Five BatchNorms and a map of the time in the graph, never applied; what the last layer leaves, never read.
    assert untrained == 5 * 2 * 32 + (embedding * 32 + 32) + (32 * 32 + 32 + 2 * 32)
    assert untrained == {10: 1_792, 12: 1_856}[embedding]


def test_what_is_not_trained_has_no_part_in_the_forecast():
    model, x = make(), signal()
    before = model.eval()(x)
    with torch.no_grad():
        for p in model.parameters():
            if not p.requires_grad:
                p.fill_(torch.nan)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize(
    ("graph", "own", "horizon", "out_features"),
    [
        ("directed-weighted", {}, 12, 1),
        ("isolated-node", {"layers": 2, "k_t": 2, "k_s": 3, "gap": 2}, 5, 2),
        ("no-edges", {"layers": 1, "k_t": 1, "k_s": 1, "gap": 12}, 12, 1),
        ("self-loops", {"layers": 2, "k_t": 4, "heads": 1, "hidden": 5}, 4, 1),
    ],
    ids=["published", "horizon-not-of-gaps", "one-block", "odd-width"],
)
def test_forecast_equals_a_numpy_implementation(graph, own, horizon, out_features):
    A = GRAPHS[graph]()
    model = with_random_norms(make(A, horizon=horizon, out_features=out_features, steps_per_day=96, **own)).eval()
    x = signal(steps_per_day=96)
    sizes = {"layers": 5, "k_t": 3, "k_s": 2, "gap": 3, "heads": 2} | own
    sizes.pop("hidden", None)
    y = model(x).detach().numpy()
    assert y.shape == (2, horizon, N, out_features)
    for b in range(2):
        expected = numpy_forecast(weights_of(model), A, x[b].numpy(), horizon=horizon, steps_per_day=96, **sizes)
        np.testing.assert_allclose(y[b], expected, atol=1e-10)
        assert np.abs(expected).max() > 0.01


def test_decoupled_layer_equals_a_numpy_implementation():
    """Estimation gate, residuals and both forecasts, each by itself."""
    model = with_random_norms(make()).eval()
    x, context = torch.randn(1, 8, N, 8), torch.randn(1, T, N, 10)
    supports = [torch.rand(1, N, N), torch.rand(N, N)] * 3
    layer: DecoupledLayer = model.layers[0]
    expected = numpy_layer(
        *(weights_of(layer), x[0].numpy(), context[0].numpy()),
        [np.tile(P.reshape(N, N).numpy(), 3) for P in supports],
        k_t=3,
        blocks=4,
        heads=2,
        positions=True,
    )
    gate = layer.gate(context[:, -8:])
    left, diffused = layer.diffusion(x, gate, supports)
    residual, own = layer.inherent(left)
    for ours, theirs in zip((gate, gate * x, left, residual, diffused, own), expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy()[0], theirs, atol=1e-10)
    assert 0 < gate.min() < gate.max() < 1
    together = layer(x, context, supports)
    torch.testing.assert_close(together, (residual, diffused + own))


@graphs
def test_transitions_equal_a_numpy_implementation(graph):
    A = GRAPHS[graph]()
    np.testing.assert_allclose(transitions(A).numpy(), numpy_transitions(A), atol=1e-12)


@graphs
def test_dynamic_graphs_equal_a_numpy_implementation(graph):
    A = GRAPHS[graph]()
    module = with_random_norms(DynamicGraph(T, 3, 2, 8, dropout=0.5)).eval()
    values, times, nodes = 3 * torch.randn(2, T, N), torch.randn(2, N, 4), 3 * torch.randn(2, N, 3)
    found = module(values, times, nodes, transitions(A)).detach().numpy()
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-12)
    for b in range(2):
        expected = numpy_dynamic_graphs(
            weights_of(module), values[b].numpy(), times[b].numpy(), nodes.numpy(), numpy_transitions(A)
        )
        np.testing.assert_allclose(found[b], expected, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3], ids="order{}".format)
def test_powers_equal_a_numpy_implementation(order):
    P = torch.rand(2, N, N)
    raised = powers(P, order)
    for b in range(2):
        np.testing.assert_allclose([R[b] for R in raised], numpy_localized(P[b].numpy(), order, 1), atol=1e-12)


def test_a_dynamic_graph_keeps_to_the_roads():
    """Along an edge attention decides; across none hardly anything passes, in either direction."""
    path = torch.diag(torch.ones(N - 1), 1)  # 0 -> 1 -> 2 ..
    P = (
        make(path)
        .eval()
        .dynamic_graph(torch.randn(1, T, N), torch.randn(1, N, 4), torch.randn(2, N, 3), transitions(path))
    )
    along, against = P[0].detach()
    assert torch.equal(along[1:] > 1e-3, path.T[1:] > 0)  # node 0 hears nobody along the edges, and so everyone
    assert torch.equal(against[:-1] > 1e-3, path[:-1] > 0)


@pytest.mark.parametrize("k_t", [1, 2, 3], ids="k_t{}".format)
def test_localized_convolution_equals_a_numpy_implementation(k_t):
    conv = LocalizedConv(6, k_t, 3, dropout=0.0)
    x, supports = torch.randn(2, 7, N, 6), [torch.rand(2, N, N), torch.rand(2, N, N), torch.rand(N, N)]
    y = conv(x, supports).detach().numpy()
    assert y.shape == (2, 8 - k_t, N, 6)
    for b in range(2):
        localized = [np.tile((P if P.dim() == 2 else P[b]).numpy(), k_t) for P in supports]
        np.testing.assert_allclose(y[b], numpy_conv(weights_of(conv), x[b].numpy(), localized, k_t), atol=1e-10)


def test_localized_convolution_sees_no_future():
    conv, supports = LocalizedConv(4, 3, 1, dropout=0.0), [torch.rand(N, N)]
    x = torch.randn(1, 9, N, 4)
    for step in range(9):
        later = x.clone()
        later[:, step] += 1.0
        changed = (conv(later, supports) != conv(x, supports)).any(dim=3).any(dim=2).any(dim=0)
        # Output i stands for input step i + 2: nothing before `step` may move.
        assert not changed[: max(step - 2, 0)].any()
        assert changed[max(step - 2, 0) : step + 1].all()


def test_positions_equal_a_numpy_implementation():
    positions = Positions(9, 5, dropout=0.0)
    np.testing.assert_allclose(positions(torch.zeros(1, 7, 5)).numpy()[0], numpy_positions(7, 5), atol=1e-12)


@pytest.mark.parametrize("k_s", [1, 2, 3], ids="k_s{}".format)
def test_training_keeps_as_many_graphs_as_are_stated(k_s):
    """Counted: what autograd saves of ``[B, N, N]`` numbers or more and not of any other size."""
    batch, nodes, kept = 3, 40, {}

    def keep(saved):
        storage = saved.untyped_storage()
        if saved.dtype == torch.float64 and saved.shape[-2:] == (nodes, nodes) and saved.shape[0] == batch:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    model = make(num_nodes=nodes, k_s=k_s, layers=1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        y = model(signal(batch, num_nodes=nodes))
    stated = 2 * (k_s + max(k_s - 1, 1)) * batch * nodes**2 * 8
    assert sum(kept.values()) == stated
    assert y.requires_grad


def test_graphs_that_do_not_fit_are_refused_with_the_number(monkeypatch):
    model = make()
    monkeypatch.setattr(graph, "available_memory", lambda device: 6 * 2 * N * N * 8)
    model(signal(2))
    with pytest.raises(InputError, match=r"num_nodes: the dynamic graphs of 3 window\(s\) \(6 x \[3, 6, 6\]\): needs"):
        model(signal(3))
    assert model.float()(signal(3).float()).shape == (3, H, N, 1)


def test_a_graph_that_no_machine_holds_is_refused_before_anything_is_computed():
    nodes = 10**7
    with pytest.raises(InputError, match=r"needs 4800000.0 GB, expected at most the \d+\.\d GB of cpu"):
        make(torch.zeros(1, 1).expand(nodes, nodes), num_nodes=nodes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 10}, r"window: got 10 steps, expected at least 11 for d2stgnn with layers=5, k_t=3"),
        ({"in_features": 1}, r"in_features: got 1, expected 3 for d2stgnn: value, time of day, day of the week"),
        ({"heads": 3}, r"heads: got 3, expected a divisor of hidden = 8"),
    ],
    ids=["window", "features", "heads"],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_a_single_row_meets_the_running_statistics():
    """In training too: it has no variance of its own, and torch's BatchNorm refuses it."""
    norm, x = with_random_norms(RowNorm(3)), torch.randn(4, 3)
    alone = norm(x[:1])
    assert norm.num_batches_tracked == 0
    torch.testing.assert_close(alone, norm.eval()(x)[:1])
    torch.testing.assert_close(norm.train()(x).mean(dim=0), norm.bias)
