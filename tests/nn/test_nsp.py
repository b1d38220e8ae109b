"""The node-specific predictor, eq. (3)."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from stlora_kernels.errors import InputError
from stlora_kernels.nn.nall import FACTORS, NALL, FusedNALL
from stlora_kernels.nn.nsp import NSP, NSPLayer

B, T, N, F, OUT = 2, 6, 5, 3, 2
SHAPES = {
    "fold": {"window": T, "horizon": 4, "temporal": "fold"},
    "step": {"window": T, "horizon": T, "temporal": "step"},
}
temporal = pytest.mark.parametrize("temporal", SHAPES)


def make(temporal="fold", *, trained=True, dtype=torch.float64, **options):
    """A small NSP in evaluation mode; ``trained`` moves its low-rank factors away from zero."""
    torch.manual_seed(0)
    options = {"hidden": 7, "layers": 2, "rank": 2, "alpha": 0.5, **SHAPES[temporal], **options}
    nsp = NSP(N, F, OUT, **options).to(dtype).eval()
    if trained:
        for name, p in nsp.named_parameters():
            if "lora" in name or "norm" in name:
                nn.init.normal_(p)
    return nsp


def signal(steps=T, features=F, *, batch=B, dtype=torch.float64):
    return torch.randn(batch, steps, N, features, dtype=dtype)


def numpy_nall(layer, x, node):
    """One node's row through eq. (2)."""
    p = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    A, low_rank_B = (p[name][node if len(p[name]) > 1 else 0] for name in ("lora_A", "lora_B"))
    if "lora_core" in p:
        A = A @ p["lora_core"][node]
    return p["weight"] @ x + p["bias"] + layer.alpha * (A @ (low_rank_B @ x))


def numpy_stack(nsp, h, node):
    """One node's hidden row through the residual layers and the head."""
    for layer in nsp.layers:
        g = layer.norm.weight.detach().numpy()
        s = h / np.sqrt(np.mean(h**2) + 1e-6) * g
        h = h + numpy_nall(layer.nall, np.where(s > 0, s, 0.1 * s), node)
    return numpy_nall(nsp.head, h, node)


def numpy_fold(nsp, x, forecast):
    weight, bias = nsp.conv.weight.detach().numpy(), nsp.conv.bias.detach().numpy()
    y = np.empty((B, nsp.horizon, N, OUT))
    for b in range(B):
        for n in range(N):
            values = np.concatenate([x[b, :, n].ravel(), forecast[b, :, n].ravel()])
            y[b, :, n] = numpy_stack(nsp, weight @ values + bias, n).reshape(nsp.horizon, OUT)
    return y


def numpy_step(nsp, x, forecast):
    weight, bias = nsp.conv.weight.detach().numpy()[..., 0], nsp.conv.bias.detach().numpy()  # [hidden, C, k]
    joined = np.concatenate([x, forecast], axis=-1)
    y = np.empty((B, T, N, OUT))
    for b in range(B):
        for t in range(T):
            for n in range(N):
                h = bias.copy()
                for j in range(3):
                    if 0 <= t + j - 1 < T:
                        h += weight[:, :, j] @ joined[b, t + j - 1, n]
                y[b, t, n] = numpy_stack(nsp, h, n)
    return y


@pytest.mark.parametrize("factor", FACTORS)
@temporal
def test_equals_a_numpy_implementation(temporal, factor):
    nsp = make(temporal, factor=factor, forecast_features=OUT)
    x, forecast = signal(), signal(nsp.horizon, OUT)
    expected = {"fold": numpy_fold, "step": numpy_step}[temporal](nsp, x.numpy(), forecast.numpy())
    np.testing.assert_allclose(nsp(x, forecast).detach().numpy(), expected, atol=1e-6)


@temporal
def test_gradcheck(temporal):
    nsp = make(temporal, window=2, horizon=2, hidden=3, layers=1, rank=1, forecast_features=1)
    x, forecast = (signal(2, f, batch=1).requires_grad_() for f in (F, 1))
    names = [name for name, _ in nsp.named_parameters()]

    def run(x, forecast, *parameters):
        return torch.func.functional_call(nsp, dict(zip(names, parameters, strict=True)), (x, forecast))

    assert torch.autograd.gradcheck(run, (x, forecast, *nsp.parameters()))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("batch", [1, 3], ids=["batch-of-one", "batch-of-3"])
@temporal
def test_every_parameter_gets_a_finite_gradient(temporal, batch, factor):
    nsp = make(temporal, factor=factor, dtype=torch.float32, dropout=0.1).train()
    x = signal(batch=batch, dtype=torch.float32)
    y = nsp(x)
    assert y.shape == (batch, nsp.horizon, N, OUT)
    y.square().sum().backward()
    for name, p in nsp.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


@temporal
def test_an_empty_batch_gives_an_empty_forecast(temporal):
    nsp = make(temporal)
    assert nsp(signal(batch=0)).shape == (0, nsp.horizon, N, OUT)


@temporal
def test_a_new_predictor_treats_all_nodes_alike(temporal):
    nsp = make(temporal, trained=False)
    same = signal()[:, :, :1].expand(-1, -1, N, -1)
    y = nsp(same)
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y))


@temporal
def test_a_nodes_own_factors_change_only_its_forecast(temporal):
    nsp = make(temporal, trained=False)
    x = signal()
    before = nsp(x)
    with torch.no_grad():
        nsp.layers[0].nall.lora_A[3] = 1.0
    changed = (nsp(x) != before).any(dim=3).any(dim=1).any(dim=0)
    assert changed.tolist() == [n == 3 for n in range(N)]


@temporal
def test_fused_and_plain_share_state_and_numbers(temporal):
    fused, plain = make(temporal, fused=True), make(temporal, fused=False, trained=False)
    assert {type(m) for m in fused.modules() if isinstance(m, NALL)} == {FusedNALL}
    assert {type(m) for m in plain.modules() if isinstance(m, NALL)} == {NALL}
    plain.load_state_dict(fused.state_dict())
    x = signal()
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-12, atol=1e-12)
    fused.load_state_dict(plain.state_dict())


def test_fused_and_plain_start_and_drop_alike_under_a_seed():
    x = signal(dtype=torch.float32)
    outputs = []
    for fused in (True, False):
        nsp = make(fused=fused, trained=False, dtype=torch.float32, dropout=0.5).train()
        torch.manual_seed(1)
        outputs.append(nsp(x))
    torch.testing.assert_close(*outputs)


def test_dropout_acts_while_training_only():
    nsp = make(dropout=0.5)
    x = signal()
    assert torch.equal(nsp(x), nsp(x))
    nsp.train()
    assert not torch.equal(nsp(x), nsp(x))


def test_a_layer_is_a_norm_and_a_nall():
    """The names that checkpoints and a fused stack rely on."""
    layer = NSPLayer(NALL(N, 7, 7, 2), dropout=0.0, negative_slope=0.1)
    assert set(layer.state_dict()) == {"norm.weight", "nall.weight", "nall.bias", "nall.lora_A", "nall.lora_B"}
    assert layer.norm.eps == 1e-6


@temporal
def test_state_dict_copy_and_pickle_round_trip(temporal):
    nsp, other = make(temporal), make(temporal, trained=False)
    other.load_state_dict(nsp.state_dict())
    x = signal()
    for clone in (other, copy.deepcopy(nsp), pickle.loads(pickle.dumps(nsp))):
        assert torch.equal(clone(x), nsp(x))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@temporal
def test_compiles_in_one_graph(temporal, fused):
    nsp = make(temporal, fused=fused, forecast_features=OUT)
    x, forecast = signal(), signal(nsp.horizon, OUT)
    compiled = torch.compile(nsp, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, forecast), nsp(x, forecast))


@temporal
def test_runs_under_autocast(temporal):
    nsp = make(temporal, dtype=torch.float32)
    x = signal(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = nsp(x)
    torch.testing.assert_close(y.float(), nsp(x), rtol=0.1, atol=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temporal": "both"}, r"temporal: got 'both', expected 'fold' or 'step'"),
        ({"temporal": "step", "horizon": 3}, r"temporal: got 'step' with window 6 and horizon 3, expected .*equal"),
        ({"factor": "edge"}, r"factor: got 'edge', expected 'node' or"),
        ({"hidden": 0}, r"hidden: got 0, expected an integer of at least 1"),
        ({"layers": -1}, r"layers: got -1, expected"),
        ({"rank": 0}, r"rank: got 0, expected"),
        ({"window": 2.5}, r"window: got 2.5, expected an integer"),
        ({"num_nodes": 0}, r"num_nodes: got 0, expected"),
        ({"dropout": 1.0}, r"dropout: got 1.0, expected a probability in \[0, 1\)"),
        ({"kernel_size": 2}, r"kernel_size: got 2, expected an odd number"),
        ({"forecast_features": -1}, r"forecast_features: got -1, expected at least 0"),
        ({"fused": False, "backend": "cpu"}, r"backend: got 'cpu' with fused=False"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(options, message):
    sizes = {"num_nodes": N, "in_features": F, "out_features": OUT, "window": T, "horizon": T}
    with pytest.raises(InputError, match=message):
        NSP(**{**sizes, **options})


@pytest.mark.parametrize(
    ("x", "forecast", "message"),
    [
        (signal(steps=T + 1), signal(4, OUT), r"x: got shape \[2, 7, 5, 3\], expected \[B, 6, 5, 3\]"),
        (signal()[0], signal(4, OUT), r"x: got shape \[6, 5, 3\], expected \[B, 6, 5, 3\]"),
        (signal(), None, r"forecast: got None, expected 2 forecast features"),
        (signal(), signal(4, 1), r"forecast: got shape \[2, 4, 5, 1\], expected \[B, 4, 5, 2\]"),
        (signal().float(), signal(4, OUT), r"x: got dtype torch.float32, expected torch.float64"),
        (signal().to("meta"), signal(4, OUT), r"x: got a tensor on meta, expected cpu"),
    ],
    ids=["steps", "no-batch", "no-forecast", "forecast-features", "dtype", "device"],
)
def test_wrong_inputs_are_named(x, forecast, message):
    with pytest.raises(InputError, match=message):
        make(forecast_features=OUT)(x, forecast)


def test_a_forecast_that_was_not_announced_is_refused():
    with pytest.raises(InputError, match=r"forecast: got shape .* expected 0 forecast features"):
        make()(signal(), signal(4, OUT))


class TestFusingHidesNothing:
    """What is changed, watched or replaced inside an NSP takes effect although its layers run as one call."""

    def make(self, **options):
        torch.manual_seed(0)
        model = NSP(4, 3, 1, 5, 5, hidden=8, layers=2, rank=2, dropout=0.0, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.uniform_(-0.5, 0.5)
        return model, torch.randn(2, 5, 4, 3)

    def test_a_setting_of_one_layer(self):
        model, x = self.make()
        before = model(x)
        model.layers[1].nall.alpha = 0.0
        after = model(x)
        model.layers[1].nall.alpha = 1.0
        model.layers[1].nall.lora_A.data.zero_()
        assert not torch.equal(before, after)
        torch.testing.assert_close(model(x), after)

    def test_hooks(self):
        model, x = self.make()
        before, seen = model(x), []
        for module in (model.layers[0], model.layers[0].nall, model.layers[0].norm):
            module.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
        torch.testing.assert_close(model(x), before)
        assert seen == ["RMSNorm", "FusedNALL", "NSPLayer"]

    def test_pruning(self):
        model, x = self.make()
        before = model(x)
        prune.l1_unstructured(model.layers[0].nall, "weight", 0.5)
        assert not torch.equal(model(x), before)
        for _ in range(2):
            model(x).sum().backward()

    def test_a_layer_of_another_class(self):
        class Silent(NALL):
            def forward(self, x, node_index=None):
                return super().forward(x, node_index) * 0

        layer = NSPLayer(Silent(4, 8, 8), dropout=0.0, negative_slope=0.1)
        h = torch.randn(2, 4, 8)
        assert torch.equal(layer(h), h)

    def test_an_activation_inside_the_nall(self):
        nall = FusedNALL(4, 8, 8, activation="relu")
        layer, h = NSPLayer(nall, dropout=0.0, negative_slope=0.1), torch.randn(2, 4, 8)
        torch.testing.assert_close(layer(h), h + nall(torch.nn.functional.leaky_relu(layer.norm(h), 0.1)))
