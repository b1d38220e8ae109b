"""Files of one's own: LargeST's years, joined, averaged to longer steps, and matched to their graph."""

import logging
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest

from stlora_kernels.data import load_dataset
from stlora_kernels.data.commands.convert import ConvertOptions, run
from stlora_kernels.data.registry import DATASETS
from stlora_kernels.errors import InputError, MissingFileError

IDS = ("318711", "318720", "318721")
ADJACENCY = np.array([[1, 0.5, 0], [0, 1, 0], [0.25, 0, 1]])


def write_year(path, first: str, steps: int = 288, ids=IDS, step: int = 300, seed: int = 0, key: str = "t"):
    """A year of LargeST as pandas lays it out: key "t", ids as text, float64, NaN where missing."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.uniform(0, 500, (steps, len(ids))))
    values[rng.random(values.shape) < 0.2] = np.nan
    times = np.datetime64(first, "ns") + np.arange(steps) * np.timedelta64(step, "s")
    with h5py.File(path, "a") as file:
        frame = file.create_group(key)
        frame["axis0"] = frame["block0_items"] = np.array(ids, dtype="S6")
        frame["axis1"] = times.astype(np.int64)
        frame["axis1"].attrs["kind"] = np.bytes_("datetime64")
        frame["block0_values"] = values
    return values


@pytest.fixture
def largest(tmp_path):
    """Two years that are two days long."""
    one = write_year(tmp_path / "ca_his_raw_2018.h5", "2018-12-31T00:00", seed=1)
    two = write_year(tmp_path / "ca_his_raw_2019.h5", "2019-01-01T00:00", seed=2)
    np.save(tmp_path / "ca_rn_adj.npy", ADJACENCY)
    return tmp_path, np.concatenate([one, two])


def load(folder, pattern="ca_his_raw_20*.h5", graph="ca_rn_adj.npy", **options):
    return load_dataset(str(folder / pattern), adjacency=folder / graph, **options)


def test_years_are_joined(largest, caplog):
    folder, values = largest
    data = load(folder)
    np.testing.assert_array_equal(data.values[..., 0], values.astype(np.float32))
    assert data.times[[0, -1]].tolist() == np.array(["2018-12-31T00:00", "2019-01-01T23:55"], "M8[s]").tolist()
    assert data.sensor_ids == IDS
    np.testing.assert_array_equal(data.adjacency, ADJACENCY.astype(np.float32))
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "ca_rn_adj.npy names no sensors; taking its rows in the order of the data's" in caplog.text


@pytest.fixture
def small(monkeypatch):
    """Make one of LargeST's sets one of as many sensors as there are ids."""

    def small(name):
        info = replace(DATASETS[name.lower()], num_nodes=len(IDS))
        monkeypatch.setitem(DATASETS, name.lower(), info)
        return info

    return small


@pytest.mark.parametrize(
    ("there", "message"),
    [
        pytest.param((0, 1, 2, 3, 4), None, id="all"),
        pytest.param((2,), "has no files of 2017, 2018, 2020, 2021; taking 2019 alone", id="one"),
        pytest.param((0, 1, 2), "has no files of 2020, 2021; taking 2017, 2018, 2019 alone", id="the-first"),
        pytest.param((0, 4), "has no files of 2018, 2019, 2020; taking 2017, 2021 alone", id="the-ends"),
    ],
)
def test_years_that_are_not_there_are_named(tmp_path, small, caplog, there, message):
    info = small("LargeST-GLA")
    for year in there:
        write_year(tmp_path / info.values_files[year], f"{info.years[year]}-12-31", 24, step=900)
    load_dataset("LargeST-GLA", tmp_path, graph="identity")
    assert caplog.messages == ([f"LargeST-GLA {message}"] if message else [])


def test_a_year_of_other_sensors_is_refused_before_it_is_read(tmp_path):
    def room(shape):
        raise AssertionError("it was about to be read")

    write_year(tmp_path / "gla_his_2019.h5", "2019-01-01", 24, step=900)
    with pytest.raises(InputError, match=r"gla_his_2019\.h5 has 3 sensors, LargeST-GLA has 3834"):
        load_dataset("LargeST-GLA", tmp_path, graph="identity", allocate=room)


@pytest.mark.parametrize(("limit", "warned"), [(359, True), (360, False)])
def test_what_takes_much_memory_is_better_converted(tmp_path, small, caplog, monkeypatch, limit, warned):
    info = small("LargeST-GLA")
    for year, file in zip(info.years, info.values_files, strict=True):
        write_year(tmp_path / file, f"{year}-12-31", 24, step=900)
    monkeypatch.setattr("stlora_kernels.data.load.LARGE", 4 * limit)  # 5 years, 24 steps, 3 sensors
    load_dataset("LargeST-GLA", tmp_path, graph="identity")
    assert ("python -m stlora_kernels.data convert LargeST-GLA FOLDER" in caplog.text) is warned
    caplog.clear()
    run(ConvertOptions("LargeST-GLA", tmp_path / "out", data_dir=tmp_path, graph="identity"))
    assert not caplog.messages


@pytest.mark.parametrize("name", ["LargeST-CA", "LargeST-GBA"])
def test_years_of_a_registered_set_are_found_by_its_name(tmp_path, small, name):
    info = small(name)
    raw = [
        write_year(tmp_path / info.values_files[year], f"{info.years[year]}-12-31", 24, seed=year) for year in (3, 1)
    ]
    np.save(tmp_path / info.graph_files[0], ADJACENCY)
    data = load_dataset(name, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing is NaN
        expected = np.nanmean(np.concatenate(raw[::-1]).reshape(16, 3, len(IDS)), axis=1)
    np.testing.assert_allclose(data.values[..., 0], expected, rtol=1e-6)
    assert (data.name, data.steps_per_day, data.null_value, data.inputs) == (name, 96, 0.0, "target")
    assert (data.quantity, data.unit, data.split) == (info.quantity, info.unit, info.split)
    np.testing.assert_array_equal(data.adjacency, ADJACENCY.astype(np.float32))
    assert load_dataset(name, tmp_path, graph="identity").adjacency.trace() == len(IDS)
    with pytest.raises(InputError, match="resample is not an option of data set"):
        load_dataset(name, tmp_path, resample=30)


def test_five_minutes_become_fifteen_by_the_mean_of_what_was_measured(largest):
    folder, values = largest
    data = load(folder, resample=15)
    with np.errstate(invalid="ignore"):
        triples = values.reshape(-1, 3, len(IDS))
        count = (~np.isnan(triples)).sum(axis=1)
        expected = np.nansum(triples, axis=1) / count
    np.testing.assert_allclose(data.values[..., 0], expected, rtol=1e-6)
    assert (count == 1).any()
    assert np.isnan(data.values).any()
    assert data.steps_per_day == 96
    assert data.num_steps == 192


def test_a_day_is_that_of_the_wall_when_clocks_are_set(tmp_path):
    offsets = ["-0700"] * 50 + ["-0800"] * 71  # clocks went back at 2 in the morning of 2021-11-07
    wall = np.datetime64("2021-11-05T00:00", "s") + (np.arange(121) - np.r_[[0] * 50, [1] * 71]) * np.timedelta64(
        1, "h"
    )
    rows = [
        f"{str(time).replace('T', ' ')}{offset},{i}" for i, (time, offset) in enumerate(zip(wall, offsets, strict=True))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["t,x", *rows]))
    data = load_dataset(str(tmp_path / "a.csv"), graph="identity", resample=1440)
    assert data.calendar().tolist() == [[0, day] for day in (4, 5, 6, 0, 1)]
    np.testing.assert_array_equal(np.diff(data.times).astype(int), 86400)
    assert data.values[:, 0, 0].tolist() == [11.5, 35.5, 60, 84.5, 108.5]  # the third day has 25 hours


def test_sensors_in_another_order_are_matched_by_id(largest):
    folder, _ = largest
    (folder / "ca_his_raw_2019.h5").unlink()
    shuffled = write_year(folder / "ca_his_raw_2019.h5", "2019-01-01T00:00", ids=(IDS[2], IDS[0], IDS[1]), seed=2)
    data = load(folder)
    np.testing.assert_array_equal(data.values[288:, :, 0], shuffled[:, [1, 2, 0]].astype(np.float32))


def test_csvs_with_offsets_are_joined_across_the_change_of_clocks(tmp_path):
    (tmp_path / "b1.csv").write_text("t,x,y\n2024-03-10 01:00-08:00,1,2\n2024-03-10 01:30-08:00,3,4\n")
    (tmp_path / "b2.csv").write_text("t,y,x\n2024-03-10 03:00-07:00,6,5\n2024-03-10 03:30-07:00,8,7\n")
    (tmp_path / "g.csv").write_text("from,to\nx,y\n")
    data = load_dataset(str(tmp_path / "b[12].csv"), adjacency=tmp_path / "g.csv")
    assert data.values[..., 0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert set(np.diff(data.times).astype(int)) == {1800}
    assert data.calendar()[:, 0].tolist() == [2, 3, 6, 7]
    hourly = load_dataset(str(tmp_path / "b[12].csv"), adjacency=tmp_path / "g.csv", resample=60)
    assert hourly.values[..., 0].tolist() == [[2, 3], [6, 7]]
    assert hourly.calendar()[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize("offsets", [("", "-07:00"), ("-08:00", "")], ids=["first-without", "second-without"])
def test_times_with_and_without_an_offset_are_not_joined(tmp_path, offsets):
    for i, offset in enumerate(offsets):
        rows = [f"2024-05-0{i + 1} 0{hour}:00{offset},{hour},2" for hour in range(3)]
        (tmp_path / f"b{i}.csv").write_text("\n".join(["t,x,y", *rows]))
    with pytest.raises(InputError, match=r"b1\.csv and .*b0\.csv: the times of only one of them have an offset"):
        load_dataset(str(tmp_path / "b?.csv"), graph="identity")


@pytest.mark.parametrize(
    ("first", "options", "message"),
    [
        pytest.param("2018-12-31T12:00", {}, "ca_his_raw_2019.h5 starts at .*, before .*2018.h5 ends", id="overlap"),
        pytest.param(
            "2019-01-01T00:00", {"ids": ("318711", "318720", "1")}, "other sensors than .*: 1, 318721", id="ids"
        ),
        pytest.param("2019-01-01T00:02", {}, "expected whole steps of 300 s", id="off-the-grid"),
    ],
)
def test_files_that_do_not_go_together_are_refused(largest, first, options, message):
    folder, _ = largest
    (folder / "ca_his_raw_2019.h5").unlink()
    write_year(folder / "ca_his_raw_2019.h5", first, **options)
    with pytest.raises(InputError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("empty", ["ca_his_raw_2018.h5", "ca_his_raw_2019.h5"])
def test_a_file_without_rows_is_named(largest, empty):
    folder, _ = largest
    (folder / empty).unlink()
    write_year(folder / empty, "2019-01-01", steps=0)
    with pytest.raises(InputError, match=f"{empty} has no rows"):
        load(folder)


def test_files_in_local_time_and_in_utc_are_refused(tmp_path):
    (tmp_path / "b1.csv").write_text("t,x\n2024-03-10 01:00-08:00,1\n2024-03-10 01:30-08:00,3\n")
    (tmp_path / "b2.csv").write_text("t,x\n2024-03-10 10:00Z,6\n2024-03-10 10:30Z,8\n")
    message = r"b2.csv is \+00:00 from UTC and .*b1.csv -08:00, expected at most 2 hours between them"
    with pytest.raises(InputError, match=message):
        load_dataset(str(tmp_path / "b[12].csv"), graph="identity")


def test_several_frames_are_channels(tmp_path):
    flow = write_year(tmp_path / "a.h5", "2024-01-01", key="flow", seed=1)
    speed = write_year(tmp_path / "a.h5", "2024-01-01", key="speed", seed=2)
    np.save(tmp_path / "g.npy", ADJACENCY)
    with pytest.raises(
        InputError, match=r"holds 2 pandas frames in fixed format, expected one, or as target .* of flow, speed"
    ):
        load(tmp_path, "a.h5", "g.npy")
    data = load(tmp_path, "a.h5", "g.npy", target="speed")
    np.testing.assert_array_equal(data.values, np.stack([speed, flow], axis=2).astype(np.float32))
    assert data.quantity == "speed"


@pytest.mark.parametrize(
    ("first", "ids"),
    [("2024-01-01", ("1", "2", "3")), ("2024-01-02", IDS)],
    ids=["sensors", "times"],
)
def test_frames_of_other_sensors_or_times_are_refused(tmp_path, first, ids):
    write_year(tmp_path / "a.h5", "2024-01-01", key="flow")
    write_year(tmp_path / "a.h5", first, key="speed", ids=ids)
    np.save(tmp_path / "g.npy", ADJACENCY)
    with pytest.raises(InputError, match="frame speed has other rows or columns than flow"):
        load(tmp_path, "a.h5", "g.npy", target="flow")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        pytest.param(np.ones((2, 2)), r"the graph has 2 nodes, the data 3 sensors", id="smaller"),
        pytest.param(np.ones((3, 4)), r"\[3, 4\], expected a square matrix", id="not-square"),
        pytest.param(np.full((3, 3), "x"), "expected a square matrix of numbers", id="text"),
        pytest.param(np.full((3, 3), None), "holds pickled objects", id="pickled"),
    ],
)
def test_matrices_that_are_no_graph_of_these_sensors_are_refused(largest, matrix, message):
    folder, _ = largest
    np.save(folder / "ca_rn_adj.npy", matrix)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_pattern_that_fits_nothing_is_named(largest):
    with pytest.raises(MissingFileError, match=r"no file fits .*gla_his_20\*\.h5"):
        load(largest[0], "gla_his_20*.h5")


@pytest.mark.parametrize("option", ["resample", "snap", "target"])
@pytest.mark.parametrize("name", ["synthetic", "PEMS08"])
def test_options_of_own_files_are_refused_elsewhere(tmp_path, name, option):
    with pytest.raises(InputError, match=f"{option} is not an option of data set '{name}'"):
        load_dataset(name, tmp_path, **{option: 5})
