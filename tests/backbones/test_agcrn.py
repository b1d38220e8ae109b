"""AGCRN: node-adaptive weights, the learned graph, the recurrence over them."""

import math

import numpy as np
import pytest
import torch
from backbone_cases import N, signal
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stlora_kernels.backbones import AGCRN
from stlora_kernels.backbones.agcrn import AGCRNLayer, WeightsPool, adaptive_graph, graph_conv
from stlora_kernels.errors import InputError

F, T, H = 3, 12, 12
SMALL = {"embedding": 4, "hidden": 5}


def lively(module):
    """With weights large enough to tell every term: as published they start close to 0."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def make(*, num_nodes=N, window=T, horizon=H, in_features=F, out_features=1, **own):
    return lively(AGCRN(num_nodes, in_features, out_features, window, horizon, **own))


@pytest.mark.parametrize(
    ("num_nodes", "embedding", "published"), [(307, 10, 748_810), (170, 2, 150_112)], ids=["PEMS04", "PEMS08"]
)
def test_has_the_published_number_of_parameters_and_trains_them_all(num_nodes, embedding, published):
    model = AGCRN(num_nodes, F, 1, 12, 12, embedding=embedding)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == published
    assert all(p.requires_grad for p in model.parameters())


def test_initial_values_are_the_published_ones():
    """Xavier's bound with torch's fans for each shape of the original; what has one dimension is within 0 and 1."""
    model = AGCRN(307, F, 1, 12, 12)
    bounds = {
        "embedding": 6 / (307 + 10),
        "layers.0.gates.weight": 6 / ((2 + 10) * 65 * 128),
        "layers.1.candidate.weight": 6 / ((2 + 10) * 128 * 64),
        "layers.1.candidate.bias": 6 / (10 + 64),
        "head.weight": 6 / (64 + 12 * 64),
    }
    for name, square in bounds.items():
        p = model.get_parameter(name)
        assert 0.95 * math.sqrt(square) < p.max() <= math.sqrt(square), name
        assert -0.95 * math.sqrt(square) > p.min() >= -math.sqrt(square), name
    assert 0 <= model.head.bias.min() < 0.5 < model.head.bias.max() <= 1


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def numpy_graph(E):
    similarity = np.array([[max(np.dot(a, b), 0.0) for b in E] for a in E])
    return np.exp(similarity) / np.exp(similarity).sum(axis=1, keepdims=True)


def numpy_conv(v, E, weights_pool, bias_pool):
    """One window's ``v [N, c_in]``: node by node, its weights a sum over the pool, T_k(A) as a polynomial of A."""
    A = numpy_graph(E)
    y = np.zeros((len(E), bias_pool.shape[1]))
    for n, e in enumerate(E):
        y[n] = sum(e[d] * bias_pool[d] for d in range(len(e)))
        for k in range(weights_pool.shape[1]):
            W = sum(e[d] * weights_pool[d, k] for d in range(len(e)))
            coefficients = np.polynomial.chebyshev.cheb2poly([0] * k + [1])
            T_k = sum(c * np.linalg.matrix_power(A, power) for power, c in enumerate(coefficients))
            y[n] += T_k[n] @ v @ W
    return y


def numpy_layer(series, E, p):
    """One window's ``series [T, N, c_in]`` -> states [T, N, hidden]."""
    h, states = np.zeros((len(E), p["candidate.bias"].shape[1])), []
    for v in series:
        gates = sigmoid(numpy_conv(np.concatenate([v, h], axis=1), E, p["gates.weight"], p["gates.bias"]))
        r, z = np.split(gates, 2, axis=1)
        c = np.tanh(numpy_conv(np.concatenate([v, r * h], axis=1), E, p["candidate.weight"], p["candidate.bias"]))
        h = z * h + (1 - z) * c
        states.append(h)
    return np.stack(states)


def numpy_parameters(module):
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def test_the_learned_graph_equals_a_numpy_implementation():
    E = torch.randn(N, 3)
    A = adaptive_graph(E).numpy()
    np.testing.assert_allclose(A, numpy_graph(E.numpy()), atol=1e-12)
    np.testing.assert_allclose(A.sum(axis=1), 1.0)
    assert (A > 0).all()


@pytest.mark.parametrize("order", [1, 2, 3, 4], ids="K{}".format)
def test_node_adaptive_convolution_equals_a_numpy_implementation(order):
    pool, E = lively(WeightsPool(3, 5, order, 4)), torch.randn(N, 4)
    v = torch.randn(2, N, 3)
    y = graph_conv(v.transpose(0, 1).contiguous(), adaptive_graph(E), *pool(E)).detach().numpy()
    p = numpy_parameters(pool)
    assert y.shape == (N, 2, 5)
    for b in range(2):
        expected = numpy_conv(v[b].numpy(), E.numpy(), p["weight"], p["bias"])
        np.testing.assert_allclose(y[:, b], expected, atol=1e-10)


def test_recurrent_layer_equals_a_numpy_implementation():
    layer, E = lively(AGCRNLayer(3, 5, 2, 4)), torch.randn(N, 4)
    x = torch.randn(7, N, 2, 3)  # [T, N, B, c_in]
    states = layer(x, E, adaptive_graph(E)).detach().numpy()
    assert states.shape == (7, N, 2, 5)
    for b in range(2):
        expected = numpy_layer(x[:, :, b].numpy(), E.numpy(), numpy_parameters(layer))
        np.testing.assert_allclose(states[:, :, b], expected, atol=1e-10)


@pytest.mark.parametrize("out_features", [1, 2], ids="out{}".format)
def test_the_whole_model_equals_a_numpy_implementation(out_features):
    model, x = make(out_features=out_features, horizon=4, **SMALL), signal()
    y = model(x).detach().numpy()
    p = numpy_parameters(model)
    for b in range(2):
        h = x[b, :, :, :1].numpy()  # [T, N, 1]
        for layer in model.layers:
            h = numpy_layer(h, p["embedding"], numpy_parameters(layer))
        expected = h[-1] @ p["head.weight"][:, 0, 0].T + p["head.bias"]  # [N, H*out]
        expected = expected.reshape(N, 4, out_features).transpose(1, 0, 2)
        np.testing.assert_allclose(y[b], expected, atol=1e-10)


def test_nodes_of_one_embedding_share_their_weights_and_their_graph():
    model, x = make(**SMALL), signal()
    x[:, :, 1] = x[:, :, 0]
    assert not torch.allclose(model(x)[:, :, 1], model(x)[:, :, 0])
    with torch.no_grad():
        model.embedding[1] = model.embedding[0]
    torch.testing.assert_close(model(x)[:, :, 1], model(x)[:, :, 0])


def test_a_state_does_not_depend_on_later_steps():
    layer, E = lively(AGCRNLayer(3, 5, 2, 4)), torch.randn(N, 4)
    A, x = adaptive_graph(E), torch.randn(7, N, 2, 3)
    before = layer(x, E, A)
    for step in range(7):
        nudged = x.clone()
        nudged[step] += 1.0
        changed = (layer(nudged, E, A) != before).flatten(1).any(dim=1)
        assert changed.tolist() == [t >= step for t in range(7)]


def test_reads_the_value_and_not_the_time_of_day_unless_asked():
    x = signal()
    other_time = x.clone()
    other_time[..., 1:] += 1.0
    plain, timed = make(**SMALL), make(input_features=3, **SMALL)
    assert torch.equal(plain(x), plain(other_time))
    assert not torch.equal(timed(x), timed(other_time))


def peak_bytes(run):
    """What tensors on the CPU take at most while ``run`` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    steps = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(np.cumsum(steps))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("num_nodes", "hidden"), [(300, 1), (40, 64)], ids=["graph", "weights"])
def test_refuses_what_does_not_fit_into_memory_and_nothing_else(num_nodes, hidden, training, monkeypatch):
    """Measured where the graph, or the nodes' weights, take nearly all of it."""
    model, x = AGCRN(num_nodes, F, 1, 4, 2, hidden=hidden), signal(1, 4, num_nodes)

    def step():
        with torch.set_grad_enabled(training):
            y = model(x)
        if training:
            y.sum().backward()

    step()
    peak = peak_bytes(step)
    monkeypatch.setattr("stlora_kernels.backbones.graph.available_memory", lambda device: 1.1 * peak)
    step()
    monkeypatch.setattr("stlora_kernels.backbones.graph.available_memory", lambda device: 0.9 * peak)
    with pytest.raises(InputError, match=f"num_nodes: agcrn's graph of {num_nodes} x {num_nodes}"):
        step()


def test_a_graph_beyond_this_machine_is_refused_with_the_number():
    """Without allocating it: a model of two million nodes is built, its graph is not."""
    model = AGCRN(2_000_000, 1, 1, 1, 1, embedding=1, hidden=1).float()
    message = (
        r"graph of 2000000 x 2000000 and .* in training: needs 64000\.\d GB, expected at most the \d+\.\d GB of cpu"
    )
    with pytest.raises(InputError, match=message):
        model(torch.zeros(1, 1, 2_000_000, 1, dtype=torch.float32))
    with torch.no_grad(), pytest.raises(InputError, match=r"every node: needs 32000\.\d GB, expected at most"):
        model(torch.zeros(1, 1, 2_000_000, 1, dtype=torch.float32))
