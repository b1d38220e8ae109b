"""HA's three forecasts against loops over single values."""

import math
import statistics

import pytest
import torch

from stlora_kernels.baselines import HistoricalAverage

SLOTS, WINDOW, HORIZON, NODES = 7, 4, 3, 3
TRAIN = range(20)


def series(steps=40, missing=0.3):
    generator = torch.Generator().manual_seed(0)
    values = 50 + 10 * torch.randn(steps, NODES, generator=generator)
    values[torch.rand(values.shape, generator=generator) < missing] = math.nan
    return values, torch.arange(steps) % SLOTS


def mean_of(values, fallback):
    values = [value for value in values if value == value]
    return statistics.fmean(values) if values else fallback


def sensor_mean(values, node):
    return mean_of(values[TRAIN.start : TRAIN.stop, node].tolist(), None)


STARTS = torch.tensor([0, 5, 20, 33])


def forecast(values, slot, variant):
    return HistoricalAverage(values, slot, TRAIN, WINDOW, HORIZON).variants()[f"HA ({variant})"](STARTS)


def test_weekly_slot_is_the_mean_of_the_same_slot_in_training():
    values, slot = series()
    found = forecast(values, slot, "weekly slot")
    assert found.shape == (len(STARTS), HORIZON, NODES)
    for b, start in enumerate(STARTS.tolist()):
        for h in range(HORIZON):
            for n in range(NODES):
                same = [values[s, n].item() for s in TRAIN if slot[s] == slot[start + WINDOW + h]]
                assert found[b, h, n].item() == pytest.approx(mean_of(same, sensor_mean(values, n)), rel=1e-6)


def test_window_mean_is_the_mean_of_what_the_window_holds():
    values, slot = series()
    found = forecast(values, slot, "window mean")
    for b, start in enumerate(STARTS.tolist()):
        for n in range(NODES):
            expected = mean_of(values[start : start + WINDOW, n].tolist(), sensor_mean(values, n))
            assert found[b, :, n].tolist() == pytest.approx([expected] * HORIZON, rel=1e-6)


def test_last_value_is_the_latest_that_is_not_missing():
    values, slot = series(missing=0.5)
    found = forecast(values, slot, "last value")
    for b, start in enumerate(STARTS.tolist()):
        for n in range(NODES):
            there = [value for value in values[start : start + WINDOW, n].tolist() if value == value]
            expected = there[-1] if there else sensor_mean(values, n)
            assert found[b, :, n].tolist() == pytest.approx([expected] * HORIZON, rel=1e-6)


def test_no_value_after_training_enters_the_means():
    values, slot = series(missing=0.0)
    before = forecast(values, slot, "weekly slot")
    values[TRAIN.stop :] = 1e6
    assert torch.equal(forecast(values, slot, "weekly slot"), before)


def test_a_slot_without_training_values_falls_back_to_the_mean_of_the_sensor():
    values, slot = series(missing=0.0)
    slot = torch.where(torch.arange(len(slot)) < TRAIN.stop, slot % 3, slot)  # slots 3 to 6 come only later
    found = forecast(values, slot, "weekly slot")
    unseen = slot[STARTS[3] + WINDOW : STARTS[3] + WINDOW + HORIZON] >= 3
    assert unseen.any()
    for n in range(NODES):
        assert found[3, unseen, n].tolist() == pytest.approx([sensor_mean(values, n)] * int(unseen.sum()))


@pytest.mark.parametrize("variant", ["weekly slot", "window mean", "last value"])
def test_a_sensor_that_never_measured_gets_the_mean_of_all_sensors(variant):
    values, slot = series(missing=0.0)
    values[:, 1] = math.nan
    found = forecast(values, slot, variant)
    expected = mean_of(values[TRAIN.start : TRAIN.stop].flatten().tolist(), None)
    assert found[:, :, 1].flatten().tolist() == pytest.approx([expected] * (len(STARTS) * HORIZON))
    assert not found.isnan().any()
