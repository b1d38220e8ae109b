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


@pytest.mark.parametrize("stray", [60, 299, 5 * 300 - 60])
def test_one_row_too_many_does_not_set_the_step(stray):
    times = at(*sorted([*range(0, 12 * 300, 300), stray]))
    odd = str(at(stray)[0])
    with pytest.raises(
        InputError, match=f"{odd} is off the steps of 300 s, as 1 of 13 times are; only 1 come"
    ) as error:
        even_step(times, "a")
    assert "\n" not in str(error.value)


def test_gaps_between_most_steps_do_not_hide_the_step():
    assert even_step(at(*(day * 86400 + hour * 3600 for day in range(9) for hour in (7, 8, 17))), "a") == 3600


@pytest.mark.parametrize("shift", [0, 150])
def test_late_clocks_snap_to_the_even_step(shift):
    rng = np.random.default_rng(0)
    even = np.delete(np.arange(500) * 300 + shift, [7, 8, 200])  # with gaps
    late = even + np.where(rng.random(len(even)) < 0.3, rng.integers(-3, 4, len(even)), 0)
    assert (late != even).any()
    np.testing.assert_array_equal(snap_times(at(*late), 3, "a"), at(*even))


def test_a_clock_that_is_always_early_snaps_to_the_steps_of_the_day():
    times = snap_times(at(298, 598, 901), 5, "a")
    np.testing.assert_array_equal(times, at(300, 600, 900))


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
    bins = bins_of(times, None, 300, minutes * 60, "a")
    out = np.empty((len(bins.times), 2, 2), np.float32)
    average(lambda start, stop: values[start:stop], bins.first, out, None)
    frame = pd.DataFrame(values.reshape(len(times), 4), index=times)
    expected = frame.resample(f"{minutes}min").mean()
    there = frame.iloc[:, 0].resample(f"{minutes}min").size() > 0
    np.testing.assert_array_equal(bins.times, expected.index[there].to_numpy().astype("datetime64[s]"))
    np.testing.assert_allclose(out.reshape(-1, 4), expected[there], rtol=1e-6)
    assert np.isnan(out).any()


@pytest.mark.parametrize("minutes", [3, 7, 35, 1500])
def test_steps_that_do_not_fit_are_refused(minutes):
    with pytest.raises(InputError, match=rf"resample is {minutes} minutes, expected a part of a day and a multiple"):
        bins_of(at(0, 300), None, 300, minutes * 60, "a")


@pytest.mark.parametrize("hours", [2, 6, 24])
def test_steps_longer_than_the_change_of_clocks_are_those_of_the_wall(hours):
    """Against pandas, which knows what clocks showed in the nights in which they are set."""
    for night in ("2021-11-05", "2021-03-12"):
        moments = pd.date_range(night, periods=200, freq="30min", tz="America/Los_Angeles")
        wall = moments.tz_localize(None).to_numpy().astype("datetime64[s]")
        times = wall[0] + np.arange(200) * np.timedelta64(1800, "s")
        bins = bins_of(times, wall, 1800, hours * 3600, "a")
        names = moments.tz_localize(None).floor(f"{hours}h")
        expected = pd.Series(np.arange(200)).groupby(names).agg(["min", "size"])
        np.testing.assert_array_equal(bins.times, expected.index.to_numpy().astype("datetime64[s]"))
        np.testing.assert_array_equal(bins.first[:-1], expected["min"])
        np.testing.assert_array_equal(np.diff(bins.first), expected["size"])
        assert bins.clock is None


def test_an_hour_that_clocks_show_twice_stays_two_hours():
    wall = at(0, 1800, 3600, 5400, 3600, 5400, 7200)
    bins = bins_of(at(*range(0, 7 * 1800, 1800)), wall, 1800, 3600, "a")
    assert bins.first.tolist() == [0, 2, 4, 6, 7]
    np.testing.assert_array_equal(bins.times, at(0, 3600, 7200, 10800))
    np.testing.assert_array_equal(bins.clock, at(0, 3600, 3600, 7200))


def test_a_step_that_the_clocks_go_back_into_is_refused():
    wall = at(7200, 9000, 10800, 12600, 10800 - 2700)  # as on the Chatham Islands, at a quarter to
    with pytest.raises(InputError, match=r"01T02:15:00 .* clocks are set back.*into the step before"):
        bins_of(at(*range(7200, 7200 + 5 * 1800, 1800)), wall, 1800, 3 * 3600, "a")
