"""A csv with a row per time and sensor, and several channels."""

import numpy as np
import pytest

from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.data.readers import open_series_csv
from stlora_kernels.errors import InputError

ROWS = ["00:15,b,5,6", "00:00,a,1,2", "00:00,b,3,4", "00:30,a,7,"]


def write(folder, *rows: str, header: str = "time,sensor,flow,speed"):
    (folder / "long.csv").write_text("\n".join([header, *(f"2024-01-01 {row}" for row in rows)]) + "\n")
    return folder / "long.csv"


@pytest.mark.parametrize("header", ["time,sensor,flow,speed", "t,Sensor_ID,flow,speed", "t,node,flow,speed"])
def test_rows_in_any_order_become_steps_sensors_and_channels(tmp_path, header):
    recording = open_series_csv(write(tmp_path, *ROWS, header=header))
    nan = np.nan
    assert recording.sensor_ids == ("b", "a")
    assert recording.channels == ("flow", "speed")
    np.testing.assert_array_equal(
        recording.read(0, 3), [[[3, 4], [1, 2]], [[5, 6], [nan, nan]], [[nan, nan], [7, nan]]]
    )
    assert (
        recording.times.astype("datetime64[m]").tolist()
        == np.array(["2024-01-01T00:00", "2024-01-01T00:15", "2024-01-01T00:30"], "M8[m]").tolist()
    )


def test_the_target_can_be_chosen(tmp_path):
    recording = open_series_csv(write(tmp_path, *ROWS), target="speed")
    assert recording.channels == ("speed", "flow")
    np.testing.assert_array_equal(recording.read(0, 1), [[[4, 3], [2, 1]]])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        pytest.param([*ROWS, "00:15,b,9,9"], {}, "line 6: sensor 'b' has 2024-01-01 00:15 a second time", id="twice"),
        pytest.param(ROWS, {"target": "x"}, "target is 'x', expected one of its channels flow, speed", id="target"),
        pytest.param(["00:00,a,1,fast"], {}, "line 2, column speed: 'fast' is not a number", id="text"),
        pytest.param([], {}, "has a header but no rows", id="no-rows"),
    ],
)
def test_broken_tables_are_refused(tmp_path, rows, options, message):
    with pytest.raises(InputError, match=message):
        open_series_csv(write(tmp_path, *rows), **options)


def test_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="two columns of the same name among flow, flow"):
        open_series_csv(write(tmp_path, *ROWS, header="t,sensor,flow,flow"))


def test_a_wide_csv_has_no_target_to_choose(tmp_path):
    (tmp_path / "a.csv").write_text("t,a\n2024-01-01,1\n")
    with pytest.raises(InputError, match="target is 'a', but each column is a sensor"):
        open_series_csv(tmp_path / "a.csv", target="a")


def test_a_table_far_larger_than_its_file_is_refused(tmp_path):
    days = np.datetime64("1900-01-01") + np.arange(20000)
    (tmp_path / "a.csv").write_text("t,sensor,v\n" + "\n".join(f"{day},{i},1" for i, day in enumerate(days)))
    with pytest.raises(InputError, match=r"0\.\d MiB claim to hold float32 \[20000, 20000, 1\], 1\.5 GiB"):
        open_series_csv(tmp_path / "a.csv")


def test_further_channels_are_inputs(tmp_path):
    rng = np.random.default_rng(0)
    times = np.datetime64("2024-01-01T00:00") + np.arange(60) * np.timedelta64(60, "m")
    rows = [f"{t},{s},{rng.uniform(1, 9):.3f},{rng.uniform(50, 90):.3f}" for t in times for s in "ab"]
    (tmp_path / "c.csv").write_text("t,sensor,flow,speed\n" + "\n".join(rows))
    (tmp_path / "g.csv").write_text("from,to\na,b\n")
    data = load_dataset(str(tmp_path / "c.csv"), adjacency=tmp_path / "g.csv")
    assert data.quantity == "flow"
    assert data.steps_per_day == 24
    assert ForecastData(data).in_features == 4
    assert ForecastData(data, inputs="target").in_features == 3
