"""The real measurements that STLORA_DATA names: what is in them, from file to window."""

import numpy as np
import pytest
import torch

from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.errors import MissingFileError


@pytest.mark.parametrize(
    ("name", "shape", "first", "last", "nonzeros", "counts"),
    [
        pytest.param(
            *("PEMS08", (7156, 170, 1), "2016-08-07T03:40", "2016-08-31T23:55", 548, (4280, 1427, 1426)), id="PEMS08"
        ),
        pytest.param(
            *("PEMS-BAY", (52116, 67, 1), "2017-01-01T00:00", "2017-06-30T23:55", 196, (36465, 5209, 10419)),
            id="PEMS-BAY",
        ),
        pytest.param(
            *("METR-LA", (2016, 207, 1), "2012-03-01T00:00", "2012-03-07T23:55", 1722, (1395, 199, 399)), id="METR-LA"
        ),
        pytest.param(
            *("SZ-TAXI", (2976, 156, 1), "2015-01-01T00:00", "2015-01-31T23:45", 532, (2067, 295, 591)), id="SZ-TAXI"
        ),
    ],
)
def test_measurements_load(real_data, name, shape, first, last, nonzeros, counts):
    data = load_dataset(name, real_data)
    task = ForecastData(data)
    assert data.values.shape == shape
    assert data.times[[0, -1]].tolist() == np.array([first, last], "datetime64[s]").tolist()
    assert np.count_nonzero(data.adjacency) == nonzeros
    assert (len(task.train), len(task.val), len(task.test)) == counts
    batch = task.test.gather(torch.tensor([0, counts[2] - 1]))
    assert batch.x.isfinite().all()
    np.testing.assert_array_equal(batch.y[1, -1, :, 0], data.values[-1, :, 0])


def test_pems_bay_lacks_the_hour_of_daylight_saving(real_data):
    data = load_dataset("PEMS-BAY", real_data)
    gaps = np.flatnonzero(np.diff(data.times) != np.timedelta64(300, "s"))
    assert gaps.size == 1
    before, after = data.times[gaps[0]], data.times[gaps[0] + 1]
    assert (before, after) == (np.datetime64("2017-03-12T01:55:00"), np.datetime64("2017-03-12T03:00:00"))
    assert data.calendar()[gaps[0] : gaps[0] + 2, 0].tolist() == [23, 36]


def test_pems08_follows_its_calendar(real_data):
    # Were the times wrong by hours or days, the quietest hours would not be those of the night, nor Sunday's few.
    data = load_dataset("PEMS08", real_data)
    step_of_day, day = data.calendar().T
    flow = data.values.mean(axis=(1, 2))
    by_hour = [flow[step_of_day // 12 == hour].mean() for hour in range(24)]
    rush = flow[(step_of_day // 12 >= 6) & (step_of_day // 12 < 9)]
    rush_day = day[(step_of_day // 12 >= 6) & (step_of_day // 12 < 9)]
    assert np.argmin(by_hour) in (2, 3)
    assert np.argmin([rush[rush_day == d].mean() for d in range(7)]) == 6


def test_sz_taxi_misses_a_quarter_of_its_values_as_zeros(real_data):
    data = load_dataset("SZ-TAXI", real_data)
    assert (data.values == data.null_value).mean() == pytest.approx(0.25, abs=0.02)
    assert data.steps_per_day == 96


def test_sz_taxi_is_anybodys_csv_too(real_data):
    folder = real_data / "SZ-TAXI"
    own = load_dataset(str(folder / "sz_speed.csv"), adjacency=folder / "sz_adj.csv")
    registered = load_dataset("SZ-TAXI", real_data)
    np.testing.assert_array_equal(own.values, registered.values)
    np.testing.assert_array_equal(own.adjacency, registered.adjacency)
    np.testing.assert_array_equal(own.times, registered.times)
    assert own.steps_per_day == 96


@pytest.mark.parametrize("name", ["PEMS03", "PEMS04", "PEMS07"])
def test_sets_with_only_a_graph_say_what_is_missing(real_data, name):
    with pytest.raises(MissingFileError, match=rf"{name}: no {name}\.npz, looked for"):
        load_dataset(name, real_data)


def test_pems_bay_loads_from_its_distances_alone(real_data, tmp_path):
    (tmp_path / "pems-bay.h5").symlink_to(real_data / "PEMS-BAY" / "pems-bay.h5")
    (tmp_path / "distances_bay_2017.csv").symlink_to(real_data / "PEMS-BAY" / "distances_bay_2017.csv")
    data = load_dataset("PEMS-BAY", tmp_path)
    # The kernel's width is that of the distances between these 67 sensors; the pickle's was that of all 325.
    assert np.count_nonzero(data.adjacency) == 209
    assert (data.adjacency.diagonal() == 1).all()
