"""LargeST's LSTM."""

import numpy as np
import torch

from stlora_kernels.backbones import LSTM

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


def test_any_number_of_nodes_are_series_of_their_own():
    model = make().eval()
    x = torch.randn(2, 12, N, F)
    torch.testing.assert_close(model(x[:, :, :1]), model(x)[:, :, :1])
