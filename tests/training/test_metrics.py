"""The streaming errors against a loop over every single target."""

import json
import math

import pytest
import torch

from stlora_kernels.errors import InputError
from stlora_kernels.training.metrics import Errors, ScoreMeter, Scores, valid_mask

NULLS = [
    pytest.param(0.0, id="zero-missing"),
    pytest.param(None, id="only-nan"),
    pytest.param(-1.0, id="minus-one"),
]


def forecasts(windows=23, horizon=12, nodes=5, seed=0):
    """Predictions and targets with zeros, minus ones and NaN among the targets."""
    generator = torch.Generator().manual_seed(seed)
    target = 60 * torch.rand(windows, horizon, nodes, 1, generator=generator)
    kind = torch.rand(target.shape, generator=generator)
    target[kind < 0.2] = 0.0
    target[(kind >= 0.2) & (kind < 0.3)] = -1.0
    target[(kind >= 0.3) & (kind < 0.4)] = math.nan
    return target.nan_to_num(30.0) + torch.randn(target.shape, generator=generator), target


def brute_force(pairs, null_value):
    """MAE, RMSE, MAPE and count of an iterable of (prediction, target) floats."""
    kept = [(p, y) for p, y in pairs if y == y and (null_value is None or abs(y - null_value) >= 5e-5)]
    ratios = [abs(p - y) / abs(y) for p, y in kept if abs(y) >= 5e-5]
    return Errors(
        mae=sum(abs(p - y) for p, y in kept) / len(kept),
        rmse=math.sqrt(sum((p - y) ** 2 for p, y in kept) / len(kept)),
        mape=100 * sum(ratios) / len(ratios),
        targets=len(kept),
    )


def pairs(prediction, target):
    return zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True)


def measure(prediction, target, null_value, batch_size) -> Scores:
    meter = ScoreMeter(target.shape[1], null_value)
    for batch in zip(prediction.split(batch_size), target.split(batch_size), strict=True):
        meter.update(*batch)
    return meter.compute()


@pytest.mark.parametrize("null_value", NULLS)
def test_every_step_equals_a_loop_over_its_targets(null_value):
    prediction, target = forecasts()
    scores = measure(prediction, target, null_value, batch_size=8)
    assert len(scores.steps) == 12
    for step, errors in enumerate(scores.steps):
        assert errors == pytest.approx(brute_force(pairs(prediction[:, step], target[:, step]), null_value), rel=1e-12)


@pytest.mark.parametrize("null_value", NULLS)
def test_pooled_equals_a_loop_over_all_targets(null_value):
    prediction, target = forecasts()
    scores = measure(prediction, target, null_value, batch_size=8)
    assert scores.pooled == pytest.approx(brute_force(pairs(prediction, target), null_value), rel=1e-12)


def test_mean_of_steps_is_the_mean_of_the_steps_and_differs_from_pooled():
    prediction, target = forecasts()
    prediction = target.nan_to_num() + torch.arange(12.0)[:, None, None]  # errors grow along the horizon
    scores = measure(prediction, target, 0.0, batch_size=8)
    assert scores.mean_of_steps.rmse == pytest.approx(sum(range(12)) / 12)
    assert scores.pooled.rmse > scores.mean_of_steps.rmse + 0.5


@pytest.mark.parametrize("batch_size", [1, 2, 7, 22, 64])
def test_result_does_not_depend_on_the_batch_size(batch_size):
    prediction, target = forecasts()
    whole = measure(prediction, target, 0.0, batch_size=23)
    parts = measure(prediction, target, 0.0, batch_size=batch_size)
    for ours, theirs in zip((*parts.steps, parts.pooled), (*whole.steps, whole.pooled), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_last_partial_batch_counts():
    prediction, target = forecasts(windows=9)
    prediction[-1] += 1000
    assert measure(prediction, target, 0.0, batch_size=4).pooled.mae > 100


def test_a_step_without_targets_is_nan_and_left_out_of_the_mean():
    prediction, target = forecasts(horizon=3)
    target[:, 1] = 0.0
    scores = measure(prediction, target, 0.0, batch_size=8)
    assert scores.steps[1].targets == 0
    assert all(math.isnan(value) for value in scores.steps[1][:3])
    assert scores.mean_of_steps.mae == pytest.approx((scores.steps[0].mae + scores.steps[2].mae) / 2)


def test_nothing_measured_at_all_is_nan_and_not_a_crash():
    target = torch.full((4, 2, 3, 1), math.nan)
    scores = measure(torch.zeros_like(target), target, 0.0, batch_size=2)
    assert scores.pooled.targets == 0
    assert math.isnan(scores.mean_of_steps.rmse)
    assert math.isnan(scores.pooled.mape)


def test_mape_stays_finite_when_zeros_are_measurements():
    target = torch.tensor([0.0, 4e-5, 10.0]).reshape(1, 1, 3, 1)
    scores = measure(target + 1, target, None, batch_size=1)
    assert scores.pooled.targets == 3
    assert scores.pooled.mape == pytest.approx(10.0)


def test_a_model_that_yields_nan_does_not_look_measured():
    prediction, target = forecasts(horizon=2)
    prediction[0, 0] = math.nan
    scores = measure(prediction, target, 0.0, batch_size=8)
    assert math.isnan(scores.mean_of_steps.mae)
    assert math.isnan(scores.mean_of_steps.mape)
    assert not math.isnan(scores.steps[1].mae)


@pytest.mark.parametrize(
    ("value", "null_value", "valid"),
    [
        (0.0, 0.0, False),
        (4e-5, 0.0, False),
        (-4e-5, 0.0, False),
        (6e-5, 0.0, True),
        (0.0, None, True),
        (math.nan, None, False),
        (math.nan, 0.0, False),
        (0.0, -1.0, True),
        (-1.0, -1.0, False),
    ],
)
def test_mask(value, null_value, valid):
    assert valid_mask(torch.tensor([value]), null_value).item() is valid


def test_shapes_that_differ_are_named():
    with pytest.raises(InputError, match=r"prediction \[2, 3, 4, 1\] and target \[2, 3, 5, 1\]"):
        ScoreMeter(3, 0.0).update(torch.zeros(2, 3, 4, 1), torch.zeros(2, 3, 5, 1))


def test_scores_go_into_strict_json():
    prediction, target = forecasts(horizon=2)
    target[:, 1] = math.nan
    plain = json.loads(json.dumps(measure(prediction, target, 0.0, 8).as_dict(), allow_nan=False))
    assert plain["steps"][1] == {"mae": None, "rmse": None, "mape": None, "targets": 0}
    assert plain["pooled"]["targets"] == plain["steps"][0]["targets"]
