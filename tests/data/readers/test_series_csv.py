"""Measurements as a plain csv."""

import numpy as np
import pytest

from stlora_kernels.data.readers import read_series_csv
from stlora_kernels.errors import InputError, MissingFileError


def write(path, *lines: str):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_csv_is_read_with_its_own_times_and_ids(tmp_path):
    path = write(tmp_path / "a.csv", "time,r1,r 2", "2015-01-01 00:00:00,1.5,2", "2015-01-01 00:15:00,0,-3e1")
    values, times, ids = read_series_csv(path)
    assert ids == ("r1", "r 2")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:, :, 0], [[1.5, 2], [0, -30]])
    assert times.dtype == "datetime64[s]"
    assert times.tolist() == np.array(["2015-01-01T00:00", "2015-01-01T00:15"], "datetime64[s]").tolist()


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA", "n/a", "null", "None"])
def test_missing_values_are_nan(tmp_path, cell):
    path = write(tmp_path / "a.csv", "time,a,b", f"2015-01-01 00:00,{cell},2", "2015-01-01 00:15,3,4")
    values = read_series_csv(path)[0][:, :, 0]
    np.testing.assert_array_equal(values, [[np.nan, 2], [3, 4]])


@pytest.mark.parametrize(
    "moment", ["2015-01-31 08:15:00", "2015-01-31T08:15", "2015/01/31 08:15", "2015-01-31 08:15:00-08:00"]
)
def test_wall_clock_times_are_read(tmp_path, moment):
    times = read_series_csv(write(tmp_path / "a.csv", "t,a", f"{moment},1"))[1]
    assert times[0] == np.datetime64("2015-01-31T08:15:00")


def test_spreadsheet_habits_do_no_harm(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"time","a"\r\n"2015-01-01 00:00","1"\r\n\r\n')
    values, _, ids = read_series_csv(tmp_path / "a.csv")
    assert ids == ("a",)
    assert values.tolist() == [[[1.0]]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(["t,a,b", "2015-01-01,1,2", "2015-01-02,1"], "line 3: 2 cells, expected 3", id="short-row"),
        pytest.param(["t,a,b", "2015-01-01,1,2,3"], "line 2: 4 cells, expected 3", id="long-row"),
        pytest.param(["t,a,b", "2015-01-01,1,2", "2015-01-02,1,x"], "line 3, column b: 'x' is not a number", id="text"),
        pytest.param(["t,a", "2015-01-01,1_00"], "line 2, column a: '1_00' is not a number", id="underscore"),
        pytest.param(["t,a,b", "", "2015-01-01,1,1;5"], "line 3, column b: '1;5' is not", id="after-a-blank-line"),
        pytest.param(["t,a", "2015-01-01,1", "soon,1"], "line 3, column 1: 'soon' is not a time", id="no-time"),
        pytest.param(["t,a", "soon,1"], "line 2, column 1: 'soon' is not a time", id="no-time-at-all"),
        pytest.param(["t,a", ",1"], "line 2, column 1: '' is not a time", id="empty-time"),
        pytest.param(["901,902", "17.5,3.2"], "line 2, column 1: '17.5' is not a time", id="no-time-column"),
        pytest.param(["t,a,b,", "2015-01-01,1,2,"], "line 1, column 4: no sensor's id", id="a-comma-too-many"),
        pytest.param(["t,sensor,flow,", "2015-01-01,a,2,"], "line 1, column 4: no channel's name", id="and-if-long"),
        pytest.param(["t,sensor,flow,q", "2015-01-01,,2,3"], "line 2, column 2: no sensor's id", id="long-no-id"),
        pytest.param(["t;a;b", "2015-01-01;1;2"], "line 1: one column", id="semicolons"),
        pytest.param(["t,a"], "has a header but no rows", id="only-a-header"),
        pytest.param([""], "line 1: one column", id="empty"),
        pytest.param(["t,a", "2015-01-01,1\0"], "a.csv", id="zero-byte"),
    ],
)
def test_broken_tables_are_refused_with_line_and_column(tmp_path, lines, message):
    path = write(tmp_path / "a.csv", *lines)
    with pytest.raises(InputError) as error:
        read_series_csv(path)
    assert message in str(error.value)
    assert "a.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_binary_file_is_an_input_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=r"a\.csv cannot be read as a csv of measurements"):
        read_series_csv(tmp_path / "a.csv")


def test_a_missing_file_is_named_with_its_path(tmp_path):
    with pytest.raises(MissingFileError, match=str(tmp_path / "a.csv")):
        read_series_csv(tmp_path / "a.csv")
