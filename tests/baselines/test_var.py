"""VAR against least squares written out with NumPy, and against processes whose coefficients are known."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stlora_kernels.baselines import VAR
from stlora_kernels.errors import InputError

WINDOW, HORIZON = 6, 4


def var(nodes, window=WINDOW, horizon=HORIZON, **own):
    return VAR(nodes, 3, 1, window, horizon, **own)


def series(steps=300, nodes=5, missing=0.0, seed=0):
    """A random walk that returns, in real units that differ from sensor to sensor."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, nodes, generator=generator)
    values = torch.zeros(steps, nodes)
    for step in range(1, steps):
        values[step] = 0.9 * values[step - 1].roll(1) + noise[step]
    values = 50 + torch.linspace(1, 20, nodes) * values
    values[torch.rand(values.shape, generator=generator) < missing] = math.nan
    return values


def filled(window, mean):
    """One window ``[T, N]``, value by value."""
    window = window.copy()
    for t in range(len(window)):
        for n in range(window.shape[1]):
            if math.isnan(window[t, n]):
                window[t, n] = window[t - 1, n] if t > 0 else mean[n]
    return window


def by_hand(values, windows, lags, ridge):
    """Forecasts of ``windows`` ``[B, T, N]``, from one least-squares problem per sensor with the ridge as rows."""
    values, windows = values.double().numpy(), windows.double().numpy()
    mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
    nodes = values.shape[1]

    def lagged(z):
        return np.concatenate([z[len(z) - k] for k in range(1, lags + 1)])

    targets = range(WINDOW, len(values))
    rows = np.stack([lagged((filled(values[t - WINDOW : t], mean) - mean) / std) for t in targets])
    weight = np.zeros((lags * nodes, nodes))
    for n in range(nodes):
        z = (values[WINDOW:, n] - mean[n]) / std[n]
        known = ~np.isnan(z)
        a = np.concatenate([rows[known], math.sqrt(ridge) * np.eye(lags * nodes)])
        b = np.concatenate([z[known], np.zeros(lags * nodes)])
        weight[:, n] = np.linalg.lstsq(a, b, rcond=None)[0]
    forecasts = []
    for window in windows:
        z = list((filled(window, mean) - mean) / std)
        for _ in range(HORIZON):
            z.append(lagged(z) @ weight)
        forecasts.append(np.stack(z[WINDOW:]) * std + mean)
    return np.stack(forecasts)


@pytest.mark.parametrize("missing", [0.0, 0.02, 0.4], ids=["complete", "few missing", "many missing"])
@pytest.mark.parametrize(("lags", "ridge"), [(3, 100.0), (1, 1e-3), (6, 10.0)])
def test_forecasts_are_those_of_least_squares(lags, ridge, missing):
    values = series(missing=missing)
    model = var(5, lags=lags, ridge=ridge)
    how = model.fit(values[:250])
    assert how == f"{lags} lags, ridge {ridge:g}, 244 training steps"
    windows = values.unfold(0, WINDOW, 1)[200:].transpose(1, 2)  # [B, T, N]
    difference = model(windows).numpy() - by_hand(values[:250], windows, lags, ridge)
    assert np.abs(difference / model.std.numpy()).max() < 1e-5


def test_more_steps_than_a_slice_are_summed_up_whole():
    values = series(steps=700, missing=0.05)
    model = var(5)
    model.fit(values)
    windows = values[:WINDOW][None]
    difference = model(windows).numpy() - by_hand(values, windows, 3, 100.0)
    assert np.abs(difference / model.std.numpy()).max() < 1e-5


def test_a_known_process_of_three_lags_is_recovered():
    generator = torch.Generator().manual_seed(1)
    phi = 0.1 * torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    phi[0] += 0.4 * torch.eye(4)
    scale = torch.tensor([1.0, 10.0, 0.1, 5.0], dtype=torch.float64)
    z = torch.zeros(20_000, 4, dtype=torch.float64)
    noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    for t in range(3, len(z)):
        z[t] = sum(z[t - k] @ phi[k - 1] for k in (1, 2, 3)) + noise[t]
    assert z[-1000:].abs().max() < 100  # the process is a stable one
    model = var(4, ridge=1e-3)
    model.fit((100 + scale * z).float())
    std = z.std(0)
    expected = phi * std[:, None] / std  # the same process of standardised values
    found = model.weight.view(3, 4, 4)
    assert torch.allclose(found.double(), expected, atol=0.05)
    assert expected.abs().max() > 0.4


def test_a_rhythm_without_noise_is_forecast_exactly():
    """A sine is a process of two lags."""
    step = torch.arange(400, dtype=torch.float64)[:, None]
    values = (30 + 5 * torch.sin(step / 7 + torch.tensor([0.0, 1.0]))).float()
    model = var(2, horizon=24, ridge=1e-6)
    model.fit(values[:300])
    assert torch.allclose(model(values[None, 310 : 310 + WINDOW])[0], values[310 + WINDOW :][:24], atol=0.05)


def test_more_sensors_than_steps():
    values = series(steps=300, nodes=883)
    model = var(883, window=12, horizon=12)
    model.fit(values)
    forecast = model(values[:24].unfold(0, 12, 1).transpose(1, 2))
    assert forecast.shape == (13, 12, 883)
    assert forecast.isfinite().all()
    low, high = values.amin(0), values.amax(0)
    assert ((forecast > low - (high - low)) & (forecast < high + (high - low))).all()


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.size = max([self.size, *(tensor.numel() * tensor.element_size() for tensor in made)])
        return result


def test_memory_does_not_hold_the_lagged_rows_of_all_steps():
    values = torch.randn(20_000, 50, generator=torch.Generator().manual_seed(0))
    model = var(50, window=12, horizon=12)
    with Largest() as largest:
        model.fit(values)
    assert largest.size <= 2 * values.numel() * 4
    assert model.weight.abs().sum() > 0


def test_duplicates_of_a_sensor_share_its_forecast():
    values = series()
    twice = torch.cat([values, values[:, :2]], dim=1)
    model = var(7, ridge=1e-6)
    model.fit(twice)
    forecast = model(twice[None, 40 : 40 + WINDOW])
    assert forecast.isfinite().all()
    assert torch.allclose(forecast[..., :2], forecast[..., 5:], rtol=1e-4)


@pytest.mark.parametrize("level", [0.0, 60.1, 1e6])
def test_a_constant_sensor_stays_where_it_is_and_disturbs_no_other(level):
    values = series()
    constant = values.clone()
    constant[:, 2] = level
    model, without = var(5), var(4)
    model.fit(constant)
    others = [0, 1, 3, 4]
    without.fit(values[:, others])
    forecast = model(constant[None, 40 : 40 + WINDOW])
    assert forecast[..., 2] == pytest.approx(level, rel=1e-5, abs=1e-5)
    assert torch.allclose(forecast[..., others], without(values[None, 40 : 40 + WINDOW][..., others]), rtol=1e-4)
    # It moves for the first time when it is tested.
    constant[40 : 40 + WINDOW, 2] += 500
    moved = model(constant[None, 40 : 40 + WINDOW])
    assert torch.allclose(moved[..., others], forecast[..., others], rtol=1e-3)


def test_a_sensor_that_hardly_moved_does_not_blow_up_the_others():
    values = series()
    values[:, 2] = 60.0
    values[100, 2] = 60.01
    model = var(5)
    model.fit(values)
    values[40 : 40 + WINDOW, 2] = 30.0
    others = [0, 1, 3, 4]
    assert (model(values[None, 40 : 40 + WINDOW])[..., others] - 50).abs().max() < 200


def test_a_sensor_that_never_measured_gets_the_mean_of_all_and_disturbs_no_other():
    values = series()
    dead = values.clone()
    dead[:, 2] = math.nan
    model, without = var(5), var(4)
    model.fit(dead)
    others = [0, 1, 3, 4]
    without.fit(values[:, others])
    forecast = model(dead[None, 40 : 40 + WINDOW])
    assert forecast[..., 2].numpy() == pytest.approx(np.full((1, HORIZON), np.nanmean(dead.double().numpy())), rel=1e-5)
    assert torch.allclose(forecast[..., others], without(values[None, 40 : 40 + WINDOW][..., others]), rtol=1e-4)


def test_a_window_without_any_value_is_forecast_as_the_means():
    values = series()
    model = var(5)
    model.fit(values)
    forecast = model(torch.full((1, WINDOW, 5), math.nan))
    assert torch.allclose(forecast, values.mean(0).expand(1, HORIZON, 5), rtol=1e-5)


def test_a_network_that_never_moved_is_forecast_as_it_was():
    values = torch.tensor([3.0, 70.0]).repeat(50, 1)
    model = var(2)
    model.fit(values)
    assert torch.equal(model(values[None, :WINDOW]), values[None, :HORIZON])


def test_what_was_fitted_is_all_in_the_state():
    values = series(missing=0.1)
    model, other = var(5), var(5)
    model.fit(values)
    other.load_state_dict(model.state_dict())
    windows = values[None, 20 : 20 + WINDOW]
    assert torch.equal(other(windows), model(windows))
    assert sum(parameter.numel() for parameter in model.parameters()) == 3 * 5 * 5
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"lags": 0}, "lags: got 0, expected an integer of at least 1"),
        ({"lags": 2.0}, "lags: got 2.0, expected an integer"),
        ({"lags": 7}, "lags: got 7, expected at most the 6 steps of the window"),
        ({"ridge": 0}, "ridge: got 0, expected a number above 0"),
        ({"ridge": math.nan}, "ridge: got nan"),
        ({"ridge": math.inf}, "ridge: got inf"),
        ({"ridge": "strong"}, "ridge: got 'strong'"),
        ({"nodes": 0}, "num_nodes: got 0"),
        ({"horizon": 0}, "horizon: got 0"),
    ],
)
def test_wrong_arguments_are_named(own, message):
    with pytest.raises(InputError, match=message):
        var(**{"nodes": 5, **own})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(9, 5), r"VAR: got training values \[9, 5\], expected \[10 or more, 5\]"),
        (torch.ones(50, 4), r"VAR: got training values \[50, 4\]"),
        (torch.ones(50), r"VAR: got training values \[50\]"),
        (torch.full((50, 5), math.nan), "VAR: every training value is missing"),
    ],
)
def test_training_values_that_cannot_be_fitted_are_named(values, message):
    with pytest.raises(InputError, match=message):
        var(5).fit(values)


@pytest.mark.parametrize("shape", [(WINDOW, 5), (1, WINDOW - 1, 5), (1, WINDOW, 4), (1, WINDOW, 5, 1)])
def test_windows_of_another_shape_are_named(shape):
    with pytest.raises(InputError, match=r"VAR: got \[.*\], expected \[B, 6, 5\]"):
        var(5)(torch.ones(shape))
