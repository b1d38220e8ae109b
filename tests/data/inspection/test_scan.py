"""One pass over the measurements, against the plain way of counting."""

import itertools
import tracemalloc

import numpy as np
import pytest

from stlora_kernels.data.inspection import scan as module
from stlora_kernels.data.inspection.calendar import calendar_of
from stlora_kernels.data.inspection.scan import duplicates, scan
from stlora_kernels.data.inspection.suspicion import suspicions

START = np.datetime64("2024-01-01T00:00:00", "s")  # a Monday


def times(steps, seconds=3600):
    return START + np.arange(steps) * np.timedelta64(seconds, "s")


@pytest.fixture
def values():
    """A fortnight of hours of 5 sensors, with all that can be wrong."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 9, (336, 5)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = 0
    values[rng.random(values.shape) < 0.1] = np.nan
    values[40:80, 1], values[100, 2], values[7:9, 3], values[:, 4] = 5, np.inf, -2, np.nan
    return values


def longest(holds):
    runs = [(len(list(group)), value) for value, group in itertools.groupby(holds.tolist())]
    return max((length for length, value in runs if value), default=0)


@pytest.mark.parametrize("slice_size", [1, 64, 10**6], ids="slices-of-{}".format)
@pytest.mark.parametrize("null_value", [None, 0.0])
def test_counts_are_the_plain_ones(values, null_value, slice_size, monkeypatch):
    monkeypatch.setattr(module, "SLICE", slice_size)
    found = scan(values, null_value, calendar_of(times(336)))
    there = np.isfinite(values) & ((values != 0) | (null_value is None))
    np.testing.assert_array_equal(found.measured, there.sum(axis=0))
    np.testing.assert_array_equal(found.nan, np.isnan(values).sum(axis=0))
    assert found.infinite.tolist() == [0, 0, 1, 0, 0]
    assert found.negative.tolist() == [0, 0, 0, 2, 0]
    np.testing.assert_array_equal(found.zero, (values == 0).sum(axis=0))
    slot, weekend = np.arange(336) % 24, np.arange(336) // 24 % 7 >= 5
    for i in range(4):
        measured = values[there[:, i], i].astype(np.float64)
        assert (found.lowest[i], found.highest[i]) == (measured.min(), measured.max())
        assert found.mean[i] == pytest.approx(measured.mean())
        assert found.std[i] == pytest.approx(measured.std())
        assert found.usual[i] == pytest.approx(np.quantile(measured, 0.99, method="inverted_cdf"))
        assert found.outage.length[i] == longest(~there[:, i])
        same = np.append(False, values[1:, i] == values[:-1, i]) & there[:, i]
        assert found.stuck.length[i] == longest(same)
        begin = found.stuck.start[i]
        assert same[begin : begin + found.stuck.length[i]].all()
        for part, is_part in enumerate((~weekend, weekend)):
            chosen = values[there[:, i] & is_part & (slot == 13), i]
            assert found.profile[part, 13, i] == pytest.approx(chosen.mean())
    assert np.isnan(found.mean[4])
    assert found.outage.length[4] == 336
    in_column = np.bincount(np.arange(336) * 240 // 336)
    np.testing.assert_allclose(in_column @ found.missing, (~there).sum(axis=0), rtol=1e-5)


def test_a_gap_is_neither_missing_nor_measured():
    clock = times(100, 300)
    clock[50:] += np.timedelta64(300 * 100, "s")
    found = scan(np.ones((100, 1), dtype=np.float32), None, calendar_of(clock))
    assert np.isnan(found.missing[26:74]).all()
    assert (found.missing[:25] == 0).all()
    assert (found.missing[-24:] == 0).all()


def test_times_that_cannot_be_read_stay_out_of_the_day(values):
    clock = times(336)
    clock[5] = np.datetime64("NaT")
    found, whole = (scan(values, None, calendar_of(moments)) for moments in (clock, times(336)))
    there = np.isfinite(values[:, 0])
    fives = (np.arange(336) % 24 == 5) & (np.arange(336) // 24 % 7 < 5) & there
    assert whole.profile[0, 5, 0] == pytest.approx(values[fives, 0].mean())
    fives[5] = False
    assert found.profile[0, 5, 0] == pytest.approx(values[fives, 0].mean())
    found.profile[0, 5], whole.profile[0, 5] = 0, 0
    np.testing.assert_array_equal(found.profile, whole.profile)
    assert scan(values, None, None).profile is None


def test_the_same_series_twice_is_found_and_a_likely_one_is_not():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (200, 7)).astype(np.float32)
    values[3, 1] = np.nan
    values[:, 4], values[:, 6] = values[:, 1], values[:, 1]
    values[:, 2] = values[::-1, 0]  # the same values at other times
    values[:, 3] = values[:, 5] = 7.0  # constant, which is said of each
    assert duplicates(values, scan(values, None, None)) == [[1, 4, 6]]


def test_reasons_to_look_at_a_sensor():
    rng = np.random.default_rng(0)
    values = rng.uniform(40, 60, (480, 12)).astype(np.float32)
    values[:, 1], values[:, 2], values[9, 3], values[50, 4] = np.nan, 7, np.inf, 1000
    values[5, 5], values[100:148, 6], values[:, 7] = -3, 50, values[:, 7] / 100
    values[rng.random(480) < 0.6, 8] = np.nan
    values[200:230, 9] = np.nan
    values[100:123, 10] = 50  # less than a day: nothing to say
    reasons = suspicions(scan(values, None, calendar_of(times(480))), 24, times(480))
    assert {i: "; ".join(reason) for i, reason in reasons.items() if i not in (7, 8)} == {
        1: "never measures anything",
        2: "is always 7",
        3: "infinite values: 1",
        4: f"goes up to 1000, and 99 % of the time stays below {np.sort(values[:, 4])[475]:g}",
        5: "negative values: 1, down to -3",
        6: "does not change for 2.0 days before 2024-01-07 03:00:00",
        9: "nothing for 1.2 days from 2024-01-09 08:00:00",
    }
    assert reasons[7] == ["has a mean of 0.5 where that of the middle sensor is 50"]
    assert reasons[8][0].endswith("% missing")
    assert list(reasons)[:5] == [1, 2, 3, 4, 5]


def test_measurements_that_are_often_negative_are_no_mistake():
    values = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    assert suspicions(scan(values, None, None), 24, None) == {}


def test_memory_stays_below_that_of_the_measurements():
    values = np.random.default_rng(0).random((15_000, 300), dtype=np.float32)
    calendar = calendar_of(times(15_000, 300))
    tracemalloc.start()
    duplicates(values, scan(values, 0.0, calendar))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * values.nbytes


def test_calendar_names_what_does_not_follow():
    clock = times(40, 900)
    clock[10:] += np.timedelta64(1800, "s")  # two steps missing
    clock[20], clock[30], clock[35] = clock[19], clock[29] - np.timedelta64(900, "s"), np.datetime64("NaT")
    clock[25] += np.timedelta64(7, "s")
    calendar = calendar_of(clock)
    assert calendar.step == 900
    assert calendar.gaps[0] == (10, 2)
    assert (calendar.repeated, calendar.backward, calendar.uneven, calendar.unreadable) == (1, 1, 2, 1)
    assert not calendar.sound
    assert calendar_of(times(40, 900)).sound
    assert not calendar_of(times(40, 1000)).sound  # no part of a day
    assert calendar_of(times(1)) is None
    assert "gaps: 3" in calendar.lines()[1]
