"""STAEformer."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from backbone_cases import N, moments, signal, with_random_norms
from torch.nn.attention import SDPBackend, sdpa_kernel

from stlora_kernels.backbones import STAEformer
from stlora_kernels.backbones.staeformer import SelfAttention, TransformerLayer
from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.errors import InputError

F, T, H, STEPS = 3, 12, 4, 288
SMALL = {
    "input_embedding": 3,
    "time_embedding": 2,
    "day_embedding": 1,
    "adaptive_embedding": 6,
    "feed_forward": 7,
    "heads": 2,
    "layers": 2,
}


def make(
    adjacency=None, *, num_nodes=N, in_features=F, out_features=1, window=T, horizon=H, steps_per_day=STEPS, **own
):
    return STAEformer(
        num_nodes, in_features, out_features, window, horizon, adjacency, steps_per_day, **{**SMALL, **own}
    )


@pytest.mark.parametrize(
    ("num_nodes", "published"),
    [(207, 1_258_980), (307, 1_354_980), (883, 1_907_940), (170, 1_223_460)],
    ids=["METR-LA", "PEMS04", "PEMS07", "PEMS08"],
)
def test_has_the_published_number_of_parameters(num_nodes, published):
    model = STAEformer(num_nodes, F, 1, 12, 12, steps_per_day=STEPS)
    assert sum(p.numel() for p in model.parameters()) == published


def test_starts_from_the_published_initial_values():
    model = STAEformer(170, F, 1, 12, 12, steps_per_day=STEPS)
    bound = math.sqrt(6 / (80 * (170 + 12)))
    assert 0.99 * bound < model.adaptive.abs().max() <= bound
    # One map makes Q, K and V, each with the bound that a map of its own would have.
    for layer in (*model.over_time, *model.over_nodes):
        assert layer.attention.qkv.weight.abs().max().item() == pytest.approx(152**-0.5, rel=1e-2)
    for embedding in (model.embed_time, model.embed_day):
        assert embedding.weight.std().item() == pytest.approx(1.0, rel=0.2)


def numpy_parameters(model):
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def numpy_attention(p, name, x, heads):
    """Along the second last axis of ``[..., L, C]``, query by query."""
    L, C = x.shape[-2:]
    d = C // heads
    W, b = p[f"{name}.qkv.weight"], p[f"{name}.qkv.bias"]
    y = np.zeros_like(x)
    for place in np.ndindex(x.shape[:-2]):
        q, k, v = (x[place] @ W[i * C : (i + 1) * C].T + b[i * C : (i + 1) * C] for i in range(3))
        for head in range(heads):
            columns = slice(head * d, (head + 1) * d)
            for i in range(L):
                score = np.array([q[i, columns] @ k[j, columns] for j in range(L)]) / np.sqrt(d)
                weight = np.exp(score) / np.exp(score).sum()
                y[place][i, columns] = sum(weight[j] * v[j, columns] for j in range(L))
    return y @ p[f"{name}.out.weight"].T + p[f"{name}.out.bias"]


def numpy_norm(p, name, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def numpy_layer(p, name, x, heads):
    h = numpy_norm(p, f"{name}.norm1", x + numpy_attention(p, f"{name}.attention", x, heads))
    hidden = np.maximum(h @ p[f"{name}.feed_forward.0.weight"].T + p[f"{name}.feed_forward.0.bias"], 0)
    return numpy_norm(
        p, f"{name}.norm2", h + hidden @ p[f"{name}.feed_forward.2.weight"].T + p[f"{name}.feed_forward.2.bias"]
    )


@pytest.mark.parametrize(("width", "heads"), [(6, 1), (6, 2), (16, 2), (20, 5)])
def test_attention_equals_a_numpy_implementation(width, heads):
    attention = SelfAttention(width, heads)
    x = torch.randn(2, 3, 7, width)
    p = {f"a.{name}": value for name, value in numpy_parameters(attention).items()}
    np.testing.assert_allclose(attention(x).detach().numpy(), numpy_attention(p, "a", x.numpy(), heads), atol=1e-10)


@pytest.mark.parametrize(("in_features", "out_features"), [(3, 1), (5, 2)], ids=["value-and-time", "more"])
def test_forecast_equals_a_numpy_implementation(in_features, out_features):
    model = with_random_norms(make(in_features=in_features, out_features=out_features)).eval()
    step, day = moments()  # [B, T] each
    x = signal(in_features=in_features, at=(step, day))
    p = numpy_parameters(model)

    features = x.numpy().copy()
    features[..., 2] = day[..., None]
    embedded = features @ p["embed_input.weight"].T + p["embed_input.bias"]
    Z = np.zeros((2, T, N, 12))
    for b, t, n in np.ndindex(2, T, N):
        time, weekday = p["embed_time.weight"][step[b, t]], p["embed_day.weight"][day[b, t]]
        Z[b, t, n] = np.concatenate([embedded[b, t, n], time, weekday, p["adaptive"][t, n]])
    np.testing.assert_allclose(model.embed(x).detach().numpy(), Z, atol=1e-10)
    for layer in range(2):
        for n in range(N):
            Z[:, :, n] = numpy_layer(p, f"over_time.{layer}", Z[:, :, n], 2)
    for layer in range(2):
        for t in range(T):
            Z[:, t] = numpy_layer(p, f"over_nodes.{layer}", Z[:, t], 2)
    y = model(x).detach().numpy()
    for b, n in np.ndindex(2, N):
        expected = p["head.weight"] @ Z[b, :, n].ravel() + p["head.bias"]
        np.testing.assert_allclose(y[b, :, n], expected.reshape(H, out_features), atol=1e-10)


def test_only_the_embeddings_of_the_moments_seen_get_a_gradient():
    model = make()
    step, day = moments()
    model(signal(at=(step, day))).square().sum().backward()
    for embedding, index in ((model.embed_time, step), (model.embed_day, day)):
        assert embedding.weight.grad.any(dim=1).nonzero().flatten().tolist() == index.unique().tolist()


def test_autocast_computes_in_bfloat16_and_keeps_the_time():
    model, x = make().float().eval(), signal().float()
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=0.05, rtol=0.05)


def test_a_model_in_bfloat16_reads_quarters_of_an_hour():
    model, x = make(steps_per_day=96).eval(), signal(steps_per_day=96)
    expected = model(x)
    y = model.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("batch", [1, 3], ids=["batch-of-one", "batch-of-3"])
def test_every_parameter_gets_a_finite_gradient(batch):
    model = make()
    y = model(signal(batch))
    assert y.shape == (batch, H, N, 1)
    assert y.isfinite().all()
    y.square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


@pytest.mark.parametrize("value", [0.0, 1e4], ids=["zeros", "large"])
def test_a_constant_window_gives_finite_gradients(value):
    model, x = make(), signal()
    x[..., 0] = value
    model(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_windows_of_a_batch_are_independent():
    model, x = make().eval(), signal(3)
    torch.testing.assert_close(model(x[1:2]), model(x)[1:2])


def test_permuting_the_nodes_with_their_embeddings_permutes_the_forecast():
    order = torch.randperm(N)
    model = with_random_norms(make()).eval()
    permuted = copy.deepcopy(model)
    with torch.no_grad():
        permuted.adaptive.copy_(model.adaptive[:, order])
    x = signal()
    assert not torch.allclose(model(x[:, :, order]), model(x)[:, :, order])
    torch.testing.assert_close(permuted(x[:, :, order]), model(x)[:, :, order])


def test_the_graph_plays_no_part():
    with_graph, without = make(torch.rand(N, N)).eval(), make().eval()
    without.load_state_dict(with_graph.state_dict())
    x = signal()
    assert torch.equal(with_graph(x), without(x))


def test_attention_hears_all_of_its_sequence_and_nothing_else():
    layer = TransformerLayer(4, 5, 2, 0.0)
    x = torch.randn(2, 3, N, 4)
    nudged = x.clone()
    nudged[1, 2, 0] += torch.randn(4)  # not the same for all columns: LayerNorm would take that away
    changed = (layer(nudged) != layer(x)).any(dim=-1)
    assert changed[1, 2].all()
    assert changed.sum() == N


def test_every_node_hears_every_node_at_every_step():
    model, x = make().eval(), signal()
    for step in range(T):
        nudged = x.clone()
        nudged[:, step, 0, 0] += 1.0
        assert (model(nudged) != model(x)).all()


@pytest.mark.parametrize(
    ("window", "horizon", "out_features", "steps_per_day", "own"),
    [
        (1, 1, 1, 288, {}),
        (9, 3, 2, 96, {"heads": 3}),
        (4, 12, 1, 24, {"layers": 1, "feed_forward": 1}),
        (24, 2, 1, 1, {"adaptive_embedding": 10, "heads": 16}),
    ],
    ids=["one-step", "two-features", "hours", "days"],
)
def test_other_windows_horizons_and_sizes(window, horizon, out_features, steps_per_day, own):
    model = make(window=window, horizon=horizon, out_features=out_features, steps_per_day=steps_per_day, **own)
    x = signal(window=window, steps_per_day=steps_per_day)
    assert model(x).shape == (2, horizon, N, out_features)


def test_one_node_is_enough():
    model = make(num_nodes=1)
    y = model(signal(num_nodes=1))
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["PEMS08", "METR-LA", "PEMS-BAY", "SZ-TAXI"])
def test_forecasts_measurements(name, real_data):
    torch.set_default_dtype(torch.float32)
    data = ForecastData(load_dataset(name, real_data))
    model = STAEformer(data.num_nodes, 3, 1, 12, 12, None, data.data.steps_per_day)
    batch = data.train.gather(torch.tensor([0, len(data.train) - 1]))
    y = model(batch.x)
    assert y.shape == batch.y.shape
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_published_sizes_run_in_a_fused_kernel():
    model = STAEformer(N, F, 1, 12, 12, steps_per_day=STEPS).float()
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        model(signal(window=12).float()).sum().backward()


def test_no_weights_between_all_pairs_of_nodes_are_kept():
    nodes, seen = 37, []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(tuple(t.shape)), t)[1], lambda t: t):
        make(num_nodes=nodes)(signal(num_nodes=nodes))
    assert seen
    assert not [shape for shape in seen if shape.count(nodes) > 1]


def test_gradcheck():
    model = make(num_nodes=2, window=3, horizon=1, steps_per_day=2, layers=1, dropout=0.0)
    x = signal(1, 3, 2, steps_per_day=2).requires_grad_()
    names = [name for name, _ in model.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *model.parameters()), fast_mode=True)


def test_compiles_forward_and_backward_in_one_graph():
    model = make().eval()
    compiled, x = torch.compile(model, fullgraph=True, backend="aot_eager"), signal()
    torch.testing.assert_close(compiled(x), model(x))
    compiled(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_dropout_acts_while_training_only():
    model, x = make(), signal()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_state_dict_copy_and_pickle_round_trip():
    x = signal()
    model, other = make().eval(), make().eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    for clone in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": 2}, r"in_features: got 2, expected at least 3: value, time of day, day of week"),
        ({"steps_per_day": None}, r"steps_per_day: got None, expected how many steps of a day"),
        ({"steps_per_day": 0}, r"steps_per_day: got 0, expected an integer of at least 1"),
        ({"heads": 5}, r"heads: got 5, expected a divisor of 12, the sum of the embeddings"),
        ({"horizon": 0}, r"horizon: got 0, expected an integer of at least 1"),
        ({"layers": 0}, r"layers: got 0, expected"),
        ({"day_embedding": 0}, r"day_embedding: got 0, expected"),
        ({"dropout": 1.0}, r"dropout: got 1.0, expected a probability"),
    ],
    ids=["features", "no-steps", "zero-steps", "heads", "horizon", "layers", "embedding", "dropout"],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, T, N + 1, F), r"x: got shape \[2, 12, 7, 3\], expected \[B, 12, 6, 3\]"),
        (torch.zeros(2, T, N, F - 1), r"x: got shape \[2, 12, 6, 2\], expected \[B, 12, 6, 3\]"),
        (torch.zeros(2, T, N, F, dtype=torch.float32), r"x: got dtype torch.float32, expected torch.float64"),
    ],
    ids=["nodes", "features", "dtype"],
)
def test_wrong_inputs_are_named(x, message):
    with pytest.raises(InputError, match=message):
        make()(x)
