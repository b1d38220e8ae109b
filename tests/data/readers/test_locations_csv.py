"""Where sensors are, looked up by id."""

import csv

import numpy as np
import pytest

from stlora_kernels.data.readers import read_locations_csv
from stlora_kernels.errors import InputError, MissingFileError


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("index,sensor_id,latitude,longitude\n0,7,34.25,-118.5\n1,a,35.5,-117\n", id="metr-la"),
        pytest.param("7,34.25,-118.5\na,35.5,-117\n", id="pems-bay"),
        pytest.param("ID,Lat,Lng,District,County\na,35.5,-117,4,x\n7,34.25,-118.5,4,y\n", id="largest"),
        pytest.param("a,35.5,-117\nz,1,2\n7,34.25,-118.5\n7,34.25,-118.5\n", id="others-and-the-same-again"),
    ],
)
def test_places_follow_the_ids(tmp_path, text):
    path = tmp_path / "places.csv"
    path.write_text(text)
    np.testing.assert_array_equal(read_locations_csv(path, ("a", "7")), [[35.5, -117], [34.25, -118.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "columns '', expected sensor_id", id="empty"),
        pytest.param("a,b\n1,2\n", "columns 'a,b', expected sensor_id", id="other-table"),
        pytest.param("id,lat,latitude,lon\na,1,2,3\n", "expected sensor_id,latitude,longitude", id="two-latitudes"),
        pytest.param("b,1,2\n", "1 of the data's 1 sensors have no place: a; the 1 places are those of b", id="absent"),
        pytest.param("a,91,2\n", r"line 1: sensor a is at latitude '91', longitude '2', expected", id="latitude"),
        pytest.param("a,-118.5,34\n", "latitude '-118.5'", id="swapped"),
        pytest.param("id,lat,lon\na,1,\n", "line 2: sensor a is at latitude '1', longitude ''", id="no-value"),
        pytest.param("id,lat,lon\na,1,x\n", "line 2, column longitude: 'x' is not a number", id="text"),
        pytest.param("a,1,2\na,1,3\n", "line 2: a second place for sensor a", id="two-places"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, message):
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_locations_csv(path, ("a",))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no file .*places\.csv; give the path of a csv of sensor locations"):
        read_locations_csv(tmp_path / "places.csv", ("a",))


def test_published_places(real_data):
    for path, count in (("METR-LA/graph_sensor_locations.csv", 207), ("PEMS-BAY/graph_sensor_locations_bay.csv", 325)):
        with (real_data / path).open() as file:
            rows = [row[-3:] for row in csv.reader(file) if row[-1] != "longitude"]
        places = read_locations_csv(real_data / path, tuple(row[0] for row in reversed(rows)))
        assert places.shape == (count, 2)
        np.testing.assert_allclose(places[::-1], [[float(row[1]), float(row[2])] for row in rows], atol=1e-5)
