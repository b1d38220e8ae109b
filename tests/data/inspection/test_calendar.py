"""Which steps the report counts, and whose clock it shows."""

import numpy as np
import pytest

from stlora_kernels.data.commands.check import CheckOptions, look
from stlora_kernels.data.inspection.calendar import calendar_of
from stlora_kernels.data.inspection.picture import _draw_series
from stlora_kernels.errors import InputError

FRIDAY = np.datetime64("2024-11-01T00:00:00", "s")  # two days before clocks go back at 2 in the morning


@pytest.fixture
def autumn(tmp_path):
    """A week of hours of a sensor that measures 90 at 8 on the wall of a working day, and else 10."""
    even = FRIDAY + np.arange(7 * 24) * np.timedelta64(1, "h")
    late = np.arange(len(even)) >= 50  # 02:00 is 01:00 again
    wall = even - late * np.timedelta64(1, "h")
    days, seconds = np.divmod(wall.astype(np.int64), 86400)
    values = np.where((seconds == 8 * 3600) & ((days + 3) % 7 < 5), 90, 10)
    zones = np.where(late, "-08:00", "-07:00")
    rows = [f"{time}{zone},{value}" for time, zone, value in zip(wall, zones, values, strict=True)]
    (tmp_path / "autumn.csv").write_text("\n".join(["time,a", *rows]))
    return tmp_path / "autumn.csv"


@pytest.mark.parametrize("broken", [False, True], ids=["sound", "refused"])
def test_hours_and_dates_are_those_of_the_wall(autumn, broken):
    if broken:
        autumn.write_text(autumn.read_text() + "\n2024-11-07 23:00:00-08:00,x\n")
    found = look(CheckOptions(str(autumn)))
    assert isinstance(found.data, InputError) is broken
    working, weekend = found.scan.profile[..., 0]
    assert (working[8], np.delete(working, 8).max(), weekend.max()) == (90, 10, 10)
    assert found.calendar.lines()[0].startswith(f"2024-11-01 00:00:00 to 2024-11-07 2{2 + broken}:00:00")
    assert found.calendar.lines()[1] == "no gaps"


def test_reasons_and_gaps_are_dated_by_the_wall(autumn):
    lines = autumn.read_text().splitlines()
    lines[100:130] = [line.rpartition(",")[0] + "," for line in lines[100:130]]
    del lines[140:143]
    autumn.write_text("\n".join(lines))
    found = look(CheckOptions(str(autumn)))
    silent, after = (lines[i].partition("-08:00")[0].replace("T", " ") for i in (100, 140))
    assert found.calendar.lines()[1] == f"gaps: 1, steps missing: 3, 3 before {after}"
    assert any(reason.endswith(f"from {silent}") for reason in found.reasons[0])


def test_a_picture_has_the_days_of_the_wall(autumn):
    found = look(CheckOptions(str(autumn)))
    figure = pytest.importorskip("matplotlib.figure").Figure()
    _draw_series(found, figure)
    (axes,) = figure.axes
    days = axes.lines[0].get_xdata()
    np.testing.assert_array_equal(days, found.data.clock.astype(np.int64) / 86400)  # without a gap
    assert days[50] == days[49]


def test_the_step_is_the_one_that_training_takes(tmp_path):
    minutes = [120 * hours + minute for hours in range(40) for minute in (0, 20, 40, 60, 80, 100, 110)]
    times = FRIDAY + np.array(minutes) * np.timedelta64(1, "m")
    (tmp_path / "a.csv").write_text("\n".join(["t,a", *(f"{time},{i}" for i, time in enumerate(times))]))
    found = look(CheckOptions(str(tmp_path / "a.csv")))
    assert found.calendar.step * found.data.steps_per_day == 86400
    assert found.calendar.step == 600
    assert calendar_of(times).step == 1200  # the commonest distance
    assert len(found.calendar.gaps) == 5 * 40


def test_a_row_too_many_is_named(tmp_path):
    times = FRIDAY + np.arange(50) * np.timedelta64(5, "m")
    rows = [f"{time},1" for time in sorted([*times, FRIDAY + np.timedelta64(16, "m")])]
    (tmp_path / "a.csv").write_text("\n".join(["t,a", *rows]))
    found = look(CheckOptions(str(tmp_path / "a.csv")))
    assert "refuses it: " in found.training
    assert "2024-11-01T00:16:00 is off the steps of 300 s" in found.training
    assert "steps that come at no whole number of steps: 2" in found.calendar.lines()
