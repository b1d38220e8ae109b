"""Graph WaveNet with double transition and adaptive adjacency."""

import numpy as np
import pytest
import torch
from backbone_cases import GRAPHS as GIVEN
from backbone_cases import N, random_graph, signal, with_random_norms

from stlora_kernels.backbones import GraphWaveNet
from stlora_kernels.backbones.graph import GraphProduct, transition
from stlora_kernels.backbones.gwnet import AdaptiveAdjacency, DiffusionConv, GatedTemporalConv
from stlora_kernels.data import load_dataset
from stlora_kernels.errors import InputError

F, T, H = 3, 12, 12
SLIM = {"residual_channels": 3, "dilation_channels": 4, "skip_channels": 5, "end_channels": 6, "embedding": 2}


GRAPHS = {**GIVEN, "learnt-only": lambda: None}
graphs = pytest.mark.parametrize("graph", GRAPHS)


def make(adjacency, *, num_nodes=N, window=T, horizon=H, in_features=F, out_features=1, **own):
    return GraphWaveNet(num_nodes, in_features, out_features, window, horizon, adjacency, 288, **own)


def array(tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize(
    ("num_nodes", "published"),
    [(207, 309_400), (307, 311_400), (883, 322_920)],
    ids=["METR-LA", "PEMS04", "PEMS07"],
)
def test_has_the_published_number_of_parameters(num_nodes, published):
    model = make(torch.eye(num_nodes), num_nodes=num_nodes)
    assert sum(p.numel() for p in model.parameters()) == published


def test_what_is_not_trained_is_what_the_published_model_never_reads():
    model = make(random_graph())
    untrained = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    residual, last = 8 * (32 * 32 + 32), (7 * 32 * 32 + 32) + 2 * 32
    assert sum(p.numel() for p in untrained.values()) == residual + last == 15_712
    x = signal()
    before = model.eval()(x)
    with torch.no_grad():
        for p in untrained.values():
            p.fill_(torch.nan)
    assert torch.equal(model(x), before)


def numpy_supports(model, A):
    """P_f, P_b and the learnt graph, row by row."""
    supports = []
    for weights in [] if A is None else [array(A).astype(np.float64), array(A).T.astype(np.float64)]:
        degree = weights.sum(axis=1)
        supports.append(np.diag([1 / d if d > 0 else 0.0 for d in degree]) @ weights)
    if model.adaptive is not None:
        scores = np.maximum(array(model.adaptive.E1) @ array(model.adaptive.E2).T, 0)
        supports.append(np.stack([np.exp(row) / np.exp(row).sum() for row in scores]))
    return supports


def numpy_diffusion(conv, x, supports):
    """[B, N, c_in] -> [B, N, c_out]: all terms side by side, one map; a node's value goes where its edges go."""
    terms = [x]
    for P in supports:
        powers = [np.linalg.matrix_power(P, k) for k in range(1, conv.order + 1)]
        terms += [np.einsum("bvc,vw->bwc", x, power) for power in powers]
    return np.concatenate(terms, axis=-1) @ np.concatenate(array(conv.weight)) + array(conv.bias)


def numpy_gated(conv, steps):
    """A list of steps [B, N, c_in] -> a shorter one of [B, N, c_out]."""
    weight, bias = array(conv.conv.weight)[..., 0], array(conv.conv.bias)  # [2*c_out, c_in, K]
    K, dilation = weight.shape[2], conv.conv.dilation[0]
    gated = []
    for t in range(dilation * (K - 1), len(steps)):
        taps = [steps[t - dilation * (K - 1 - k)] @ weight[:, :, k].T for k in range(K)]
        filtered, gate = np.split(sum(taps) + bias, 2, axis=-1)
        gated.append(np.tanh(filtered) / (1 + np.exp(-gate)))
    return gated


def numpy_forecast(model, x, A):
    """The published order: skips at every step, cropped to the steps that are left, and only the last one read."""

    def linear(layer, values):
        return values @ array(layer.weight).T + array(layer.bias)

    supports = numpy_supports(model, A)
    values = array(x)[..., : model.input_features]
    values = np.concatenate([np.zeros((len(x), model.padding, *values.shape[2:])), values], axis=1)
    steps = [linear(model.start, values[:, t]) for t in range(values.shape[1])]
    skips = None
    for layer in model.layers:
        gated = numpy_gated(layer.conv, steps)
        own = [linear(layer.skip, h) for h in gated]
        skips = own if skips is None else [s + o for s, o in zip(skips[-len(own) :], own, strict=True)]
        mixed = [numpy_diffusion(layer.graph_conv, h, supports) for h in gated]
        mixed = np.stack([m + r for m, r in zip(mixed, steps[-len(mixed) :], strict=True)])  # [T', B, N, C]
        norm = layer.norm
        mean, var = array(norm.running_mean), array(norm.running_var)
        if model.training:
            mean, var = mixed.mean(axis=(0, 1, 2)), mixed.var(axis=(0, 1, 2))
        steps = list((mixed - mean) / np.sqrt(var + 1e-5) * array(norm.weight) + array(norm.bias))
    assert len(skips) == 1
    hidden = np.maximum(linear(model.head[1], np.maximum(skips[0], 0)), 0)
    y = linear(model.head[3], hidden)  # [B, N, H*out]
    return y.reshape(len(x), x.shape[2], model.horizon, -1).transpose(0, 2, 1, 3)


@graphs
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_forecast_equals_a_numpy_implementation(graph, mode):
    A, x = GRAPHS[graph](), signal()
    model = with_random_norms(make(A, dropout=0.0)).train(mode == "training")
    np.testing.assert_allclose(array(model(x)), numpy_forecast(model, x, A), atol=1e-8)


@pytest.mark.parametrize(
    "own",
    [
        {"kernel_size": 3, "blocks": 2},
        {"order": 1, "layers": 3, "blocks": 2},
        {"order": 3, "input_features": 3},
        {"adaptive": False},
        SLIM,
    ],
    ids=["kernel3", "order1-layers3", "order3-all-features", "given-graphs-only", "slim"],
)
def test_forecast_equals_a_numpy_implementation_with_other_sizes(own):
    A, x = random_graph(), signal(window=9)
    model = with_random_norms(make(A, window=9, horizon=3, out_features=2, dropout=0.0, **own))
    np.testing.assert_allclose(array(model(x)), numpy_forecast(model, x, A), atol=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3], ids="order{}".format)
@pytest.mark.parametrize("graph", ["directed-weighted", "learnt-only"])
def test_diffusion_convolution_equals_a_numpy_implementation(graph, order):
    A = GRAPHS[graph]()
    model = make(A, order=order, dropout=0.0, **SLIM)
    conv = model.layers[0].graph_conv
    supports = numpy_supports(model, A)
    x = torch.randn(N, 3, 2, SLIM["dilation_channels"])
    products = [GraphProduct(torch.from_numpy(P.T)) for P in supports]
    y = array(conv(x, products))
    for t in range(3):
        expected = numpy_diffusion(conv, array(x[:, t].transpose(0, 1)), supports)
        np.testing.assert_allclose(y[:, t].swapaxes(0, 1), expected, atol=1e-10)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 2), (3, 2)], ids=["k2-d1", "k2-d2", "k3-d2"])
def test_gated_convolution_equals_a_numpy_implementation_and_sees_no_future(kernel_size, dilation):
    conv = GatedTemporalConv(4, 5, kernel_size, dilation)
    x = torch.randn(N, 9, 2, 4)
    reach = dilation * (kernel_size - 1)
    y = array(conv(x))
    assert y.shape == (N, 9 - reach, 2, 5)
    np.testing.assert_allclose(y, np.stack(numpy_gated(conv, list(array(x).swapaxes(0, 1))), axis=1), atol=1e-12)
    for step in range(9):
        nudged = x.clone()
        nudged[:, step] += 1.0
        changed = (array(conv(nudged)) != y).any(axis=(0, 2, 3))
        # Output i stands for input step i + reach, and reads every `dilation`-th step before it.
        reads = [step in range(i, i + reach + 1, dilation) for i in range(9 - reach)]
        assert changed.tolist() == reads


def test_learnt_graph_equals_a_numpy_implementation():
    adaptive = AdaptiveAdjacency(N, 4)
    scores = array(adaptive.E1) @ array(adaptive.E2).T
    expected = np.exp(np.where(scores > 0, scores, 0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(array(adaptive()).T, expected, atol=1e-12)


def test_features_of_a_step_do_not_depend_on_later_steps():
    model = with_random_norms(make(random_graph())).eval()
    products = [*model.graphs, lambda h: (model.adaptive() @ h.flatten(1)).view_as(h)]

    def features(x):  # of every layer, [N, T', B, 32]
        h, every = model.start(x), []
        for layer in model.layers[:-1]:
            h = layer(h, products)[0]
            every.append(h)
        return every

    x = torch.randn(N, 13, 2, 2)
    before = features(x)
    for step in range(13):
        nudged = x.clone()
        nudged[:, step] += 1.0
        for h, after in zip(before, features(nudged), strict=True):
            changed = (h != after).any(dim=3).any(dim=2).any(dim=0)
            first = 13 - h.shape[1]  # the input step that the first feature stands for
            assert not changed[: max(step - first, 0)].any()
            assert changed[max(step - first, 0)]


@pytest.mark.parametrize("window", [1, 12, 13], ids="T{}".format)
def test_every_step_of_the_window_reaches_every_step_of_the_forecast(window):
    model = with_random_norms(make(random_graph(), window=window, horizon=3)).eval()
    x = signal(window=window).requires_grad_()
    for step in range(3):
        (gradient,) = torch.autograd.grad(model(x)[:, step].sum(), x)
        assert (gradient[..., :2] != 0).any(dim=2).all()
        assert (gradient[..., 2] == 0).all()  # day of the week


def test_values_go_along_the_edges_as_far_as_the_order():
    path = torch.diag(torch.ones(N - 1), 1)  # 0 -> 1 -> ... -> 5
    conv, x = DiffusionConv(2, 2, graphs=1, order=2, dropout=0.0), torch.randn(N, 1, 1, 2)
    nudged = x.clone()
    nudged[2] += 1.0
    along, against = GraphProduct(transition(path).T), GraphProduct(transition(path.T).T)
    for product, heard in ((along, [2, 3, 4]), (against, [0, 1, 2])):
        changed = (conv(nudged, [product]) - conv(x, [product])).abs().amax(dim=(1, 2, 3)) > 1e-12
        assert changed.nonzero().flatten().tolist() == heard


def test_a_large_sparse_graph_gives_the_forecast_of_the_dense_one(monkeypatch):
    A, x = random_graph(120, 0.03), signal(num_nodes=120)
    model = with_random_norms(make(A, num_nodes=120)).eval()
    assert all(product.sparse for product in model.graphs)
    monkeypatch.setattr("stlora_kernels.backbones.graph.SPARSE_DENSITY", 0.0)
    dense = make(A, num_nodes=120).eval()
    assert not any(product.sparse for product in dense.graphs)
    dense.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), dense(x))


@pytest.mark.parametrize("name", ["METR-LA", "PEMS08"], ids=["directed-with-self-loops", "binary"])
def test_forecasts_on_a_measured_road_graph(name, real_data):
    adjacency = torch.from_numpy(load_dataset(name, real_data).adjacency)
    model = make(adjacency, num_nodes=len(adjacency), dropout=0.0)
    assert all(product.sparse for product in model.graphs)
    x = signal(num_nodes=len(adjacency))
    np.testing.assert_allclose(array(model(x)), numpy_forecast(model, x, adjacency), atol=1e-8)


@pytest.fixture
def one_gigabyte(monkeypatch):
    monkeypatch.setattr("stlora_kernels.backbones.graph.available_memory", lambda device: 10**9)


def test_a_learnt_graph_that_does_not_fit_is_refused_with_the_number(one_gigabyte):
    message = (
        r"num_nodes: the adaptive adjacency \(4 matrices of 20000 x 20000; adaptive=False has none\): "
        r"needs 12\.8 GB, expected at most the 1\.0 GB of cpu"
    )
    with pytest.raises(InputError, match=message):
        make(None, num_nodes=20_000)
    assert make(torch.eye(N), adaptive=False).adaptive is None


def test_a_learnt_graph_is_held_against_the_memory_of_where_it_goes(monkeypatch):
    model = make(None)
    monkeypatch.setattr("stlora_kernels.backbones.graph.available_memory", lambda device: 1000)
    with pytest.raises(InputError, match=r"matrices of 6 x 6; .* needs 0\.0 GB"):
        model.to("cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"adjacency": None, "adaptive": False},
            r"adjacency: got None, expected the graph .* that gwnet with",
        ),
        ({"window": 14}, r"window: got 14 steps, expected at most 13 for gwnet with blocks=4, layers=2, kernel_size=2"),
        ({"window": 2, "blocks": 1, "layers": 1}, r"layers: got 1 layer in 1 block, expected at least 2 in all"),
        ({"in_features": 1}, r"input_features: got 2, expected at most in_features = 1"),
    ],
    ids=["no-graph", "window", "one-layer", "value-only"],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make(**{"adjacency": random_graph(), **options})
