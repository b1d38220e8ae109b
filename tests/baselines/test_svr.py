"""SVR against scikit-learn called by hand, and on series whose future is known."""

import math

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVR

from stlora_kernels.baselines import SVR
from stlora_kernels.errors import InputError

WINDOW, HORIZON = 5, 3


def svr(nodes, window=WINDOW, horizon=HORIZON, **own):
    return SVR(nodes, 3, 1, window, horizon, **own)


def series(steps=120, nodes=3, missing=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    step = torch.arange(steps)[:, None]
    values = 50 + 10 * torch.sin(step / 6 + torch.arange(nodes)) + torch.randn(steps, nodes, generator=generator)
    values = values * torch.linspace(1, 20, nodes)
    values[torch.rand(values.shape, generator=generator) < missing] = math.nan
    return values


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def filled(window):
    window = list(window)
    for t in range(len(window)):
        if math.isnan(window[t]):
            window[t] = window[t - 1] if t > 0 else 0.0
    return window


@pytest.mark.parametrize("missing", [0.0, 0.2], ids=["complete", "gaps"])
def test_every_step_ahead_is_scikit_learns(missing):
    values = series(missing=missing)
    model = svr(3, pairs=10**6, C=0.1)
    model.fit(values, seed=4)
    standard = (values - model.mean) / model.std
    mean, std = np.nanmean(values.double().numpy(), 0), np.nanstd(values.double().numpy(), 0)
    assert model.mean.numpy() == pytest.approx(mean, rel=1e-6)
    assert model.std.numpy() == pytest.approx(std, rel=1e-6)
    z = standard.tolist()
    for h in range(HORIZON):
        inputs, targets = [], []
        for start in range(len(z) - WINDOW - HORIZON + 1):
            for n in range(3):
                window = [z[start + t][n] for t in range(WINDOW)]
                target = z[start + WINDOW + h][n]
                if not all(map(math.isnan, window)) and not math.isnan(target):
                    inputs.append(filled(window))
                    targets.append(target)
        by_hand = LinearSVR(C=0.1, random_state=4).fit(inputs, targets)
        assert model.weight[h].numpy() == pytest.approx(by_hand.coef_, rel=1e-5, abs=1e-6)
        assert model.bias[h].item() == pytest.approx(by_hand.intercept_[0], rel=1e-5, abs=1e-6)
        window = [z[20 + t][1] for t in range(WINDOW)]
        forecast = by_hand.predict([filled(window)])[0] * std[1] + mean[1]
        assert model(values[None, 20 : 20 + WINDOW])[0, h, 1].item() == pytest.approx(forecast, rel=1e-5)


def test_the_sample_follows_the_seed():
    values = series()
    models = [svr(3, pairs=50) for _ in range(3)]
    how = [model.fit(values, seed=seed) for model, seed in zip(models, (0, 0, 1), strict=True)]
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
    assert how[0] == "50 pairs of a window and a sensor, drawn with seed 0, C 0.01"


def test_the_sample_takes_no_global_random_numbers():
    before = torch.get_rng_state()
    models = [svr(3, pairs=50) for _ in range(2)]
    for seed, model in enumerate(models):
        np.random.seed(seed)  # noqa: NPY002
        model.fit(series(), seed=3)
    assert same(*models)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pair_is_drawn_once_and_no_more_than_there_are():
    model = svr(3, pairs=10**6)
    start, sensor = model._draw(torch.ones(20, 3, dtype=torch.bool), seed=0)
    drawn = set(zip(start.tolist(), sensor.tolist(), strict=True))
    assert len(drawn) == len(start) == 13 * 3
    assert {pair[0] for pair in drawn} == set(range(13))  # the last window ends with the last step


def test_all_pairs_are_equally_likely():
    model, counts = svr(2, pairs=30), torch.zeros(33, 2)
    for seed in range(300):
        start, sensor = model._draw(torch.ones(40, 2, dtype=torch.bool), seed)
        counts.index_put_((start, sensor), torch.ones(30), accumulate=True)
    assert counts.sum() == 300 * 30
    expected = 300 * 30 / 66
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_pairs_without_a_measurement_are_not_drawn():
    known = torch.zeros(40, 3, dtype=torch.bool)
    known[10:14, 1] = True
    start, sensor = svr(3)._draw(known, seed=0)
    assert sensor.unique().tolist() == [1]
    # A value in start .. start + 4 and one in start + 5 .. start + 7.
    assert start.tolist() == [s for s in range(33) if s <= 13 and s + 4 >= 10 and s + 5 <= 13 and s + 7 >= 10]


def test_a_line_goes_on():
    step = torch.arange(600.0)[:, None]
    values = 20 + step * torch.tensor([0.1, 2.0, -0.5])
    model = svr(3, window=12, horizon=12, C=1.0)
    model.fit(values[:500])
    forecast, ahead = model(values[None, 500:512]), values[512:524]
    missed, last = (forecast[0] - ahead).abs(), (values[511] - ahead).abs()
    assert (missed[11] < 0.05 * last[11]).all()


def test_a_rhythm_is_forecast_better_than_by_its_last_value():
    values = series(steps=1000, missing=0.05)
    model = svr(3, window=12, horizon=6)
    model.fit(values[:800])
    errors, naive = [], []
    for start in range(800, 980):
        target = values[start + 12 : start + 18]
        errors.append((model(values[None, start : start + 12])[0] - target).abs())
        naive.append((values[start + 11] - target).abs())
    assert torch.stack(errors).nanmean() < 0.4 * torch.stack(naive).nanmean()


def test_hardly_anything_measured_is_still_fitted():
    values = series(steps=400, missing=0.95)
    values[:, 1] = math.nan
    model = svr(3)
    model.fit(values)
    forecast = model(torch.full((2, WINDOW, 3), math.nan))
    assert forecast.shape == (2, HORIZON, 3)
    assert forecast.isfinite().all()


def test_what_was_fitted_is_all_in_the_state():
    values = series()
    model, other = svr(3), svr(3)
    model.fit(values)
    other.load_state_dict(model.state_dict())
    windows = values[None, 20 : 20 + WINDOW]
    assert torch.equal(other(windows), model(windows))
    assert sum(parameter.numel() for parameter in model.parameters()) == HORIZON * (WINDOW + 1)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"pairs": 0}, "pairs: got 0, expected an integer of at least 1"),
        ({"pairs": 1e4}, "pairs: got 10000.0, expected an integer"),
        ({"C": 0.0}, "C: got 0.0, expected a number above 0"),
        ({"C": -1}, "C: got -1"),
        ({"C": True}, "C: got True"),
    ],
)
def test_wrong_arguments_are_named(own, message):
    with pytest.raises(InputError, match=message):
        svr(3, **own)


def test_a_training_part_without_inputs_or_without_targets_is_named():
    values = series(steps=WINDOW + HORIZON)
    with pytest.raises(InputError, match="SVR: no training window has both a measured value and a measured target"):
        svr(3).fit(values.index_fill(0, torch.arange(WINDOW), math.nan))
    with pytest.raises(InputError, match="SVR: no training target 2 steps ahead is measured"):
        svr(3).fit(values.index_fill(0, torch.tensor([WINDOW + 1]), math.nan))
