"""The length of steps, late clocks, and longer steps."""

import numpy as np
import pandas as pd
import pytest

from stlora_kernels.data.steps import average, bins_of, even_step, snap_times
from stlora_kernels.errors import InputError

START = np.datetime64("2024-01-01T00:00:00", "s")


def at(*seconds: int) -> np.ndarray:
    return START + np.array(seconds) * np.timedelta64(1, "s")


@pytest.mark.parametrize("seconds", [(0, 300, 600), (0, 300, 3600), (60, 120), (150, 450)], ids=str)
def test_the_step_is_the_smallest_distance(seconds):
    assert even_step(at(*seconds), "a") == seconds[1] - seconds[0]


def test_a_clock_that_is_late_is_refused_with_what_would_help():
    with pytest.raises(InputError, match=r"00:10:01 follows .*00:05:00, expected whole steps of 300 s.*snap=1 or more"):
        even_step(at(0, 300, 601, 900, 1200, 1500), "a")


@pytest.mark.parametrize("shift", [0, 150])
def test_late_clocks_snap_to_the_even_step(shift):
    rng = np.random.default_rng(0)
    even = np.delete(np.arange(500) * 300 + shift, [7, 8, 200])  # with gaps
    late = even + np.where(rng.random(len(even)) < 0.3, rng.integers(-3, 4, len(even)), 0)
    assert (late != even).any()
    np.testing.assert_array_equal(snap_times(at(*late), 3, "a"), at(*even))


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        pytest.param(
            (0, 300, 600, 904, 1200), "00:15:04 is 4 s off the grid of 300 s, expected at most snap=2", id="4"
        ),
        pytest.param((0, 300, 600, 601, 900, 1200), "both snap to 2024-01-01T00:10:00", id="two-times-become-one"),
        pytest.param((0, 300, 200), "expected times that increase", id="back"),
    ],
)
def test_what_is_further_off_is_refused(seconds, message):
    with pytest.raises(InputError, match=message):
        snap_times(at(*seconds), 2, "a")


@pytest.mark.parametrize("minutes", [15, 60])
def test_averages_are_those_of_pandas(minutes, monkeypatch):
    monkeypatch.setattr("stlora_kernels.data.steps.SLICE", 50)  # several slices
    rng = np.random.default_rng(0)
    times = at(*np.delete(np.arange(400) * 300 + 600, np.r_[3, 100:140]))
    values = rng.uniform(0, 9, (len(times), 2, 2)).astype(np.float32)
    values[rng.random(values.shape) < 0.5] = np.nan
    bins = bins_of(times, 300, minutes * 60, "a")
    out = np.empty((len(bins.times), 2, 2), np.float32)
    average(lambda start, stop: values[start:stop], bins.first, out)
    frame = pd.DataFrame(values.reshape(len(times), 4), index=times)
    expected = frame.resample(f"{minutes}min").mean()
    there = frame.iloc[:, 0].resample(f"{minutes}min").size() > 0
    np.testing.assert_array_equal(bins.times, expected.index[there].to_numpy().astype("datetime64[s]"))
    np.testing.assert_allclose(out.reshape(-1, 4), expected[there], rtol=1e-6)
    assert np.isnan(out).any()


@pytest.mark.parametrize("minutes", [3, 7, 35, 1500])
def test_steps_that_do_not_fit_are_refused(minutes):
    with pytest.raises(InputError, match=rf"resample is {minutes} minutes, expected a part of a day and a multiple"):
        bins_of(at(0, 300), 300, minutes * 60, "a")
