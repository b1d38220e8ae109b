"""What a SensorData accepts, and its calendar."""

import numpy as np
import pytest

from stlora_kernels.errors import InputError


def times(*moments: str) -> np.ndarray:
    return np.array(moments, dtype="datetime64[s]")


def with_value(value: float) -> np.ndarray:
    values = np.ones((60, 3, 1), dtype=np.float32)
    values[7, 1] = value
    return values


@pytest.mark.parametrize(
    ("moment", "steps_per_day", "step_of_day", "day_of_week"),
    [
        pytest.param("2024-01-01T00:00", 288, 0, 0, id="monday-midnight"),
        pytest.param("2018-09-01T00:00", 288, 0, 5, id="pems03-starts-on-a-saturday"),
        pytest.param("2016-07-01T00:00", 288, 0, 4, id="pems08-starts-on-a-friday"),
        pytest.param("2016-08-07T03:40", 288, 44, 6, id="sunday-0340"),
        pytest.param("2015-01-31T23:45", 96, 95, 5, id="last-quarter-of-an-hour"),
        pytest.param("1969-12-31T23:55", 288, 287, 2, id="before-1970"),
        pytest.param("2024-01-02T12:00", 1, 0, 1, id="daily-steps"),
    ],
)
def test_calendar_follows_the_clock_and_the_week(make_data, moment, steps_per_day, step_of_day, day_of_week):
    data = make_data(steps=1, times=times(moment), steps_per_day=steps_per_day)
    assert data.calendar().tolist() == [[step_of_day, day_of_week]]


def test_gaps_of_whole_steps_are_kept(make_data):
    data = make_data(steps=3, times=times("2017-03-12T01:50", "2017-03-12T01:55", "2017-03-12T03:00"))
    assert data.calendar()[:, 0].tolist() == [22, 23, 36]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"values": np.ones((60, 3))}, "float64 [60, 3], expected float32 [S, N, C]", id="no-channels"),
        pytest.param({"values": np.ones((60, 0, 1), np.float32)}, "no empty dimension", id="no-sensors"),
        pytest.param({"values": with_value(np.inf)}, "infinite value at 2024-01-01T00:35:00, sensor s1", id="inf"),
        pytest.param({"values": np.full((60, 3, 1), np.nan, np.float32)}, "every value is missing", id="all-nan"),
        pytest.param({"sensor_ids": ("a", "b")}, "2 sensor ids for 3 sensors", id="too-few-ids"),
        pytest.param({"sensor_ids": ("a", "b", "a")}, "two sensors have the id 'a'", id="id-twice"),
        pytest.param({"times": times("2024-01-01")}, "[1], expected datetime64[s] [60]", id="too-few-times"),
        pytest.param({"steps_per_day": 7}, "7 steps a day, expected a divisor of 86400", id="odd-steps-per-day"),
        pytest.param({"steps_per_day": 0}, "0 steps a day", id="zero-steps-per-day"),
        pytest.param({"steps_per_day": 96}, "expected whole steps of 900 s later", id="steps-too-near"),
        pytest.param({"adjacency": np.ones((3, 4), np.float32)}, "[3, 4], expected a square", id="not-square"),
        pytest.param({"adjacency": np.ones((5, 5), np.float32)}, "5 nodes, the data 3 sensors", id="other-graph"),
        pytest.param({"adjacency": np.ones((3, 3))}, "float64, expected float32", id="graph-dtype"),
        pytest.param({"adjacency": -np.eye(3, dtype=np.float32)}, "adjacency[0, 0] is -1.0", id="negative-weight"),
        pytest.param(
            {"adjacency": np.full((3, 3), np.nan, np.float32)}, "is nan, expected a finite weight", id="nan-weight"
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(make_data, changes, message):
    with pytest.raises(InputError) as error:
        make_data(**changes)
    assert message in str(error.value)
    assert str(error.value).startswith("small: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        pytest.param(("2024-01-02", "2024-01-01"), "2024-01-01T00:00:00 follows 2024-01-02T00:00:00", id="back"),
        pytest.param(("2024-01-01", "2024-01-01"), "2024-01-01T00:00:00 follows 2024-01-01", id="twice"),
        pytest.param(("2024-01-01", "2024-01-01T00:05:01"), "expected whole steps of 300 s", id="off-the-grid"),
        pytest.param(("2024-01-01", "NaT"), "step 1 has no time", id="no-time"),
    ],
)
def test_time_has_to_go_on_in_whole_steps(make_data, moments, message):
    with pytest.raises(InputError, match=message):
        make_data(steps=2, times=times(*moments))
