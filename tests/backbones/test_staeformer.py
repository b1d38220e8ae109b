"""STAEformer."""

import math

import numpy as np
import pytest
import torch
from backbone_cases import N, moments, signal, with_random_norms
from torch.nn.attention import SDPBackend, sdpa_kernel

from stlora_kernels.backbones import STAEformer
from stlora_kernels.backbones.staeformer import SelfAttention, TransformerLayer

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
