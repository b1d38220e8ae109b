"""LargeST's LSTM."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from stlora_kernels.backbones import LSTM
from stlora_kernels.errors import InputError

N, F = 4, 3
SMALL = {"embedding": 3, "hidden": 4, "head": 5, "dropout": 0.0}


def make(*, window=12, horizon=6, out_features=1, **own):
    return LSTM(N, F, out_features, window, horizon, **own)


def test_has_the_published_number_of_parameters():
    model = LSTM(170, 3, 1, 12, 12)
    assert sum(p.numel() for p in model.parameters()) == 97_932


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def test_equals_a_numpy_implementation():
    model = make(window=5, out_features=2, **SMALL, layers=2)
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    x = torch.randn(2, 5, N, F)
    y = model(x).detach().numpy()
    for b in range(2):
        for n in range(N):
            steps = [p["embed.weight"] @ v + p["embed.bias"] for v in x[b, :, n].numpy()]
            for layer in range(2):
                w_in, w_h, b_in, b_h = (
                    p[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
                h = c = np.zeros(4)
                for t, v in enumerate(steps):
                    i, f, g, o = np.split(w_in @ v + b_in + w_h @ h + b_h, 4)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                    steps[t] = h = sigmoid(o) * np.tanh(c)
            hidden = np.maximum(p["head.0.weight"] @ steps[-1] + p["head.0.bias"], 0)
            expected = (p["head.2.weight"] @ hidden + p["head.2.bias"]).reshape(6, 2)
            np.testing.assert_allclose(y[b, :, n], expected, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 3], ids=["batch-of-one", "batch-of-3"])
def test_every_parameter_gets_a_finite_gradient(batch):
    model = make()
    y = model(torch.randn(batch, 12, N, F))
    assert y.shape == (batch, 6, N, 1)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_nodes_are_independent_series():
    model = make().eval()
    x = torch.randn(2, 12, N, F)
    order = torch.randperm(N)
    torch.testing.assert_close(model(x[:, :, order]), model(x)[:, :, order])
    torch.testing.assert_close(model(x[:, :, :1]), model(x)[:, :, :1])


def test_gradcheck():
    model = make(window=3, horizon=2, **SMALL, layers=1)
    x = torch.randn(1, 3, N, F, requires_grad=True)
    names = [name for name, _ in model.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *model.parameters()))


def test_compiles_around_the_recurrence():
    model = make(**SMALL)
    x = torch.randn(2, 12, N, F)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x), model(x))


def test_dropout_acts_between_layers_while_training_only():
    model, x = make(dropout=0.5), torch.randn(2, 12, N, F)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_copy_and_pickle_round_trip():
    model = make().eval()
    x = torch.randn(2, 12, N, F)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(clone, nn.Module)
        assert torch.equal(clone(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, r"hidden: got 0, expected an integer of at least 1"),
        ({"horizon": -12}, r"horizon: got -12, expected"),
        ({"dropout": 1.5}, r"dropout: got 1.5, expected a probability"),
    ],
    ids=["hidden", "horizon", "dropout"],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_wrong_inputs_are_named():
    with pytest.raises(InputError, match=r"x: got shape \[2, 12, 4, 2\], expected \[B, 12, N, 3\]"):
        make()(torch.randn(2, 12, N, 2))
