"""load_dataset: names, folders, calendars, one's own csv, and every way to ask for what is not there."""

import logging
import sys

import numpy as np
import pytest

from stlora_kernels.data import dataset_names, load_dataset
from stlora_kernels.data.mirrors import MIRRORS
from stlora_kernels.data.registry import DATASETS
from stlora_kernels.errors import InputError, MissingExtraError, MissingFileError

STEPS = 30


@pytest.fixture
def pems_folder(tmp_path):
    """The first steps of a made-up PEMS08, without a folder of its own, and its last two sensors joined."""
    flow = np.random.default_rng(0).uniform(0, 300, (STEPS, 170, 3))
    np.savez_compressed(tmp_path / "PEMS08.npz", data=flow)
    (tmp_path / "PEMS08.csv").write_text("from,to,cost\n168,169,350.2\n")
    return tmp_path


@pytest.fixture
def own_csv(tmp_path):
    """Two sensors at steps of 15 minutes with a gap, and their graph."""
    moments = ("00:00", "00:15", "00:30", "02:00", "02:15")
    rows = [f"2024-05-04 {moment},{i},{10 * i}" for i, moment in enumerate(moments)]
    (tmp_path / "city.csv").write_text("\n".join(["time,b,a", *rows]))
    (tmp_path / "graph.csv").write_text("from,to,weight\na,b,0.5\n")
    return tmp_path


def test_every_registered_name_is_listed():
    assert dataset_names() == (
        *("METR-LA", "PEMS-BAY", "PEMS03", "PEMS04", "PEMS07", "PEMS08", "SZ-TAXI"),
        *("LargeST-CA", "LargeST-GLA", "LargeST-GBA"),
        "synthetic",
    )


@pytest.mark.parametrize(
    ("name", "last_step"),
    [
        # Months the field's papers give as the span of the set.
        pytest.param("METR-LA", "2012-06-27T23:55", id="METR-LA"),
        # An hour less, which the change to daylight saving time took.
        pytest.param("PEMS-BAY", "2017-06-30T22:55", id="PEMS-BAY"),
        pytest.param("PEMS03", "2018-11-30T23:55", id="PEMS03"),
        pytest.param("PEMS04", "2018-02-28T23:55", id="PEMS04"),
        pytest.param("PEMS07", "2017-08-06T23:55", id="PEMS07"),
        pytest.param("PEMS08", "2016-08-31T23:55", id="PEMS08"),
        pytest.param("SZ-TAXI", "2015-01-31T23:45", id="SZ-TAXI"),
        pytest.param("LargeST-CA", "2021-12-31T23:45", id="LargeST-CA"),
    ],
)
def test_registered_calendars_end_when_the_sets_do(name, last_step):
    info = DATASETS[name.lower()]
    end = np.datetime64(info.first_step, "m") + (info.num_steps - 1) * np.timedelta64(info.step_minutes, "m")
    assert end == np.datetime64(last_step, "m")


@pytest.mark.parametrize("name", ["PEMS08", "pems08", "Pems08"])
@pytest.mark.parametrize("own_folder", [True, False], ids=["own-folder", "shared-folder"])
def test_files_are_found_in_the_sets_folder_or_beside_it(pems_folder, name, own_folder):
    if own_folder:
        (pems_folder / "PEMS08").mkdir()
        for file in ("PEMS08.npz", "PEMS08.csv"):
            (pems_folder / file).rename(pems_folder / "PEMS08" / file)
    data = load_dataset(name, pems_folder)
    assert data.name == "PEMS08"
    assert data.values.shape == (STEPS, 170, 3)
    assert np.argwhere(data.adjacency).tolist() == [[168, 169], [169, 168]]
    assert (data.quantity, data.unit, data.split, data.null_value) == ("flow", "veh/5min", (0.6, 0.2, 0.2), 0.0)
    assert not data.synthetic


def test_data_folder_comes_from_the_environment(pems_folder, monkeypatch):
    monkeypatch.setenv("STLORA_DATA", str(pems_folder))
    assert load_dataset("PEMS08").num_nodes == 170
    with pytest.raises(MissingFileError, match="elsewhere is not there"):
        load_dataset("PEMS08", pems_folder / "elsewhere")
    with pytest.raises(MissingFileError, match=r"PEMS08\.npz is not a folder"):
        load_dataset("PEMS08", pems_folder / "PEMS08.npz")


def test_a_shorter_npz_is_taken_for_the_end_of_the_set_and_says_so(pems_folder, caplog):
    data = load_dataset("PEMS08", pems_folder)
    assert data.times[-1] == np.datetime64("2016-08-31T23:55:00")
    assert data.times[0] == np.datetime64("2016-08-31T21:30:00")
    assert caplog.records[0].levelno == logging.WARNING
    assert "has 30 of the 17856 steps of PEMS08; taking them for the last ones" in caplog.text


def test_first_step_overrides_the_calendar(pems_folder, caplog):
    data = load_dataset("PEMS08", pems_folder, first_step="2016-07-01 00:10")
    assert data.times[[0, -1]].tolist() == np.array(["2016-07-01T00:10", "2016-07-01T02:35"], "M8[s]").tolist()
    assert not caplog.text


def test_a_full_npz_starts_at_the_registered_step(tmp_path, caplog):
    np.savez_compressed(tmp_path / "PEMS08.npz", data=np.ones((17856, 170), np.float32))
    (tmp_path / "PEMS08.csv").write_text("from,to,cost\n0,1,1\n")
    assert load_dataset("PEMS08", tmp_path).times[0] == np.datetime64("2016-07-01T00:00:00")
    assert not caplog.text


def test_sensor_ids_of_pems03_come_from_its_list(tmp_path):
    np.savez_compressed(tmp_path / "PEMS03.npz", data=np.ones((STEPS, 358), np.float32))
    (tmp_path / "PEMS03.txt").write_text("\n".join(str(313000 + i) for i in range(358)))
    (tmp_path / "PEMS03.csv").write_text("from,to,distance\n313002,313000,0.3\n313005,313005,0.1\n")
    data = load_dataset("PEMS03", tmp_path)
    assert data.sensor_ids[:2] == ("313000", "313001")
    assert np.argwhere(data.adjacency).tolist() == [[0, 2], [2, 0]]  # and no self-loop


def test_another_graph_can_be_given(pems_folder):
    (pems_folder / "mine.csv").write_text("from,to,weight\n3,4,0.25\n")
    (pems_folder / "PEMS08.csv").unlink()
    data = load_dataset("PEMS08", pems_folder, adjacency=pems_folder / "mine.csv")
    assert np.argwhere(data.adjacency).tolist() == [[3, 4]]
    assert data.adjacency[3, 4] == 0.25


def test_ones_own_csv_needs_a_graph(own_csv):
    with pytest.raises(InputError, match=r"city\.csv needs a graph of its sensors: give adjacency, a \.csv, \.pkl or"):
        load_dataset(str(own_csv / "city.csv"))


def test_ones_own_csv_needs_no_code(own_csv):
    data = load_dataset(str(own_csv / "city.csv"), adjacency=own_csv / "graph.csv")
    assert data.name == "city"
    assert data.sensor_ids == ("b", "a")
    assert data.steps_per_day == 96
    assert data.values[:, :, 0].tolist() == [[i, 10 * i] for i in range(5)]
    assert data.calendar()[:, 0].tolist() == [0, 1, 2, 8, 9]  # the gap stays
    assert data.adjacency.tolist() == [[0, 0], [0.5, 0]]  # matched by id
    assert data.null_value is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        pytest.param("PEMS05", {}, "unknown data set 'PEMS05', expected one of METR-LA, PEMS-BAY", id="unknown"),
        pytest.param("", {}, "unknown data set '', expected one of", id="empty-name"),
        pytest.param("city.csv", {}, "city.csv; give the path of an existing one", id="csv-is-missing"),
        pytest.param("PEMS08", {"nodes": 5}, "nodes is not an option of data set 'PEMS08'", id="size-of-a-real-set"),
        pytest.param("synthetic", {"nodes": 0}, "nodes=0", id="no-nodes"),
        pytest.param("synthetic", {"steps": -5}, "steps=-5", id="negative-steps"),
        pytest.param("synthetic", {"seed": -1}, "seed=-1", id="negative-seed"),
        pytest.param("synthetic", {"adjacency": "g.csv"}, "adjacency is not an option", id="graph-of-synthetic"),
        pytest.param("METR-LA", {"first_step": "2012-03-01"}, "first_step is not an option", id="h5-has-times"),
        pytest.param("a.csv", {"first_step": "2012-03-01"}, "first_step is not an option", id="csv-has-times"),
        pytest.param("PEMS08", {"first_step": "monday"}, "first_step is 'monday'", id="first-step-is-no-time"),
        pytest.param("PEMS08", {"first_step": "NaT"}, "first_step is 'NaT'", id="first-step-is-not-a-time"),
        pytest.param(
            "PEMS08",
            {"first_step": "2016-07-01T00:00-07:00"},
            "first_step is '2016-07-01T00:00-07:00', expected a local time, without an offset from UTC",
            id="first-step-with-an-offset",
        ),
        pytest.param(
            "PEMS08", {"adjacency": "g.json"}, "g.json: expected a graph as .csv, .pkl or .npy", id="graph-format"
        ),
        pytest.param("PEMS08", {"adjacency": "g.csv"}, "no file", id="graph-is-missing"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(pems_folder, name, options, message):
    with pytest.raises(InputError) as error:
        load_dataset(name, pems_folder, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in dataset_names() if name != "synthetic"])
def test_missing_files_are_named_with_where_to_put_and_get_them(tmp_path, name):
    with pytest.raises(MissingFileError) as error:
        load_dataset(name, tmp_path)
    info = DATASETS[name.lower()]
    assert f"looked for {tmp_path / name / info.files[0]}" in str(error.value)
    assert f", also in {tmp_path};" in str(error.value)
    free = all(MIRRORS.get(name, {}).get(file) for file in info.files)
    assert (f"python -m stlora_kernels.data download {name} --data-dir {tmp_path}" in str(error.value)) is free
    assert ("no address of it without a login is known" in str(error.value)) is not free
    assert "https://github.com/" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_graph_names_every_file_that_would_do(tmp_path):
    (tmp_path / "metr-la.h5").touch()
    with pytest.raises(MissingFileError, match=r"no adj_mx\.pkl or distances_la_2012\.csv"):
        load_dataset("METR-LA", tmp_path)


def test_without_a_data_folder_the_cache_of_downloads_is_used(pems_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("STLORA_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(
        MissingFileError, match=r"home/\.cache/stlora is not there: give data_dir .* or set STLORA_DATA"
    ):
        load_dataset("PEMS08")
    cache = tmp_path / "home" / ".cache" / "stlora" / "PEMS08"
    cache.mkdir(parents=True)
    for file in ("PEMS08.npz", "PEMS08.csv"):
        (pems_folder / file).rename(cache / file)
    assert load_dataset("PEMS08").num_nodes == 170


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        pytest.param((STEPS, 100, 1), "has 100 sensors, PEMS08 has 170", id="other-sensors"),
        pytest.param((17857, 170), "has 17857 steps, PEMS08 has 17856: give first_step", id="more-than-the-full-set"),
    ],
)
def test_an_npz_that_is_not_the_set_is_refused(pems_folder, shape, message):
    np.savez_compressed(pems_folder / "PEMS08.npz", data=np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=message):
        load_dataset("PEMS08", pems_folder)


def test_a_list_of_ids_of_another_length_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "PEMS03.npz", data=np.ones((STEPS, 358), np.float32))
    (tmp_path / "PEMS03.txt").write_text("1 2 3")
    (tmp_path / "PEMS03.csv").write_text("1,2,3\n")
    with pytest.raises(InputError, match=r"PEMS03\.txt lists 3 sensor ids, expected 358"):
        load_dataset("PEMS03", tmp_path)


@pytest.mark.parametrize("value", ["inf", "-inf", "1e99"])
def test_infinite_values_are_refused(own_csv, value):
    (own_csv / "city.csv").write_text(f"t,a,b\n2024-01-01 00:00,1,2\n2024-01-01 00:05,3,{value}\n")
    with pytest.raises(InputError, match="city: infinite value at 2024-01-01T00:05:00, sensor b"):
        load_dataset(str(own_csv / "city.csv"), adjacency=own_csv / "graph.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(["00:00,1,2"], "has 1 step, expected at least 2", id="one-row"),
        pytest.param(["00:00,1,2", "00:00,1,2"], "expected times that increase", id="time-twice"),
        pytest.param(["00:05,1,2", "00:00,1,2"], "expected times that increase", id="time-goes-back"),
        pytest.param(
            ["00:00,1,2", "00:07,1,2"], "has steps of 420 s, expected a part of a day", id="step-is-no-part-of-a-day"
        ),
        pytest.param(["00:00,1,2", "00:05,1,2", "00:12,1,2"], "expected whole steps of 300 s", id="uneven"),
        pytest.param(["00:00,,", "00:05,,nan"], "every value is missing", id="all-missing"),
    ],
)
def test_series_that_are_none_are_refused(own_csv, rows, message):
    (own_csv / "city.csv").write_text("\n".join(["t,a,b", *(f"2024-01-01 {row}" for row in rows)]))
    with pytest.raises(InputError, match=message):
        load_dataset(str(own_csv / "city.csv"), adjacency=own_csv / "graph.csv")


def test_a_graph_of_another_size_names_both_sizes(own_csv):
    (own_csv / "graph.csv").write_text("0,1,1\n1,0,1\n0,0,0\n")
    with pytest.raises(InputError, match="city: the graph has 3 nodes, the data 2 sensors"):
        load_dataset(str(own_csv / "city.csv"), adjacency=own_csv / "graph.csv")


def test_a_registered_csv_at_another_step_is_refused(tmp_path):
    (tmp_path / "sz_speed.csv").write_text("t,a\n2015-01-01 00:00,1\n2015-01-01 00:05,1\n")
    (tmp_path / "sz_adj.csv").write_text("0\n")
    with pytest.raises(InputError, match="has steps of 300 s, SZ-TAXI has steps of 15 minutes"):
        load_dataset("SZ-TAXI", tmp_path)


@pytest.mark.parametrize(
    ("name", "module"),
    [("METR-LA", "h5py"), ("SZ-TAXI", "pandas")],
)
def test_a_missing_extra_is_named_with_how_to_install_it(tmp_path, monkeypatch, name, module):
    for file in ("metr-la.h5", "adj_mx.pkl", "sz_adj.csv"):
        (tmp_path / file).touch()
    (tmp_path / "sz_speed.csv").write_text("t,a\n2015-01-01,1\n")
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=rf"{module} is not installed.*stlora_kernels\[train\]"):
        load_dataset(name, tmp_path)
