"""``convert``: a data set written once and mapped into memory ever after."""

import errno
import json
import os
from dataclasses import fields

import numpy as np
import pytest
import torch

from stlora_kernels.data import ForecastData, SensorData, load_dataset
from stlora_kernels.data.__main__ import main
from stlora_kernels.data.commands.convert import ConvertOptions, run
from stlora_kernels.data.converted import read_converted
from stlora_kernels.errors import InputError
from stlora_kernels.training.cli import run as run_command
from stlora_kernels.training.options import parse

DAY = np.datetime64("2024-11-03T00:00:00", "s")


def same(a: SensorData, b: SensorData) -> None:
    for field in fields(SensorData):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        else:
            assert one == other, field.name


@pytest.fixture
def city(tmp_path):
    """Two sensors and two channels over a gap, a missing value and an hour that comes twice."""
    steps = [*range(40), *range(50, 90)]
    walls = [
        (DAY + (s - (2 if s >= 4 else 0)) * np.timedelta64(1800, "s"), "-08:00" if s >= 4 else "-07:00") for s in steps
    ]
    rows = [f"{wall}{zone},{s},{i + 1}.5,{i % 7 or ''}" for i, (wall, zone) in enumerate(walls) for s in "ba"]
    (tmp_path / "city.csv").write_text("\n".join(["time,sensor,flow,speed", *rows]))
    (tmp_path / "g.csv").write_text("from,to,weight\na,b,0.5\n")
    return tmp_path


def options(folder, destination: str = "out", **changes) -> ConvertOptions:
    return ConvertOptions(str(folder / "city.csv"), folder / destination, adjacency=folder / "g.csv", **changes)


def test_a_csv_comes_back_as_it_was(city, capsys):
    run(options(city))
    original = load_dataset(str(city / "city.csv"), adjacency=city / "g.csv")
    back = load_dataset(str(city / "out"))
    assert original.clock is not None
    same(original, back)
    assert isinstance(back.values, np.memmap)
    assert capsys.readouterr().out.startswith(f"{city / 'out'}: 2 sensors, 80 steps of 30 min, 0.0 MiB")
    here, there = ForecastData(original), ForecastData(back)
    for a, b in zip(next(here.test.batches(9)), next(there.test.batches(9)), strict=True):
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    assert [path.name for path in city.iterdir() if path.name.endswith(".part")] == []


def test_a_graph_is_chosen_when_converting_and_again_when_loading(city):
    (city / "places.csv").write_text("id,lat,lon\na,34.1,-118\nb,34.2,-118\n")
    run(ConvertOptions(f"{city}/city.csv", city / "out", graph="neighbours", locations=city / "places.csv"))
    out = str(city / "out")
    assert load_dataset(out).sensor_ids == ("b", "a")
    np.testing.assert_array_equal(load_dataset(out).adjacency, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(load_dataset(out, graph="identity").adjacency, np.eye(2))
    weighted = load_dataset(out, adjacency=city / "g.csv")
    np.testing.assert_array_equal(weighted.adjacency, [[0, 0], [0.5, 0]])
    np.testing.assert_array_equal(load_dataset(out, graph="binary").adjacency, [[0, 1], [1, 0]])
    with pytest.raises(InputError, match="city needs the distances between its sensors: give adjacency"):
        load_dataset(out, graph="kernel")
    with pytest.raises(InputError, match="resample is not an option of data set"):
        load_dataset(out, resample=60)


def test_a_registered_set_comes_back_as_it_was(tmp_path, caplog):
    flow = np.random.default_rng(0).uniform(0, 300, (30, 170, 3))
    np.savez_compressed(tmp_path / "PEMS08.npz", data=flow)
    (tmp_path / "PEMS08.csv").write_text("from,to,cost\n168,169,350.2\n")
    run(ConvertOptions("PEMS08", tmp_path / "out", data_dir=tmp_path))
    same(load_dataset("PEMS08", tmp_path), load_dataset(str(tmp_path / "out")))
    assert load_dataset(str(tmp_path / "out")).inputs == "target"


def test_synthetic_data_stay_synthetic(tmp_path):
    run(ConvertOptions("synthetic", tmp_path / "out"))
    assert load_dataset(str(tmp_path / "out")).synthetic


def test_what_is_said_overrules(city):
    run(options(city, name="town", quantity="speed", unit="km/h", null_value=0.0, target="speed", inputs="target"))
    data = load_dataset(str(city / "out"))
    assert (data.name, data.quantity, data.unit, data.null_value, data.inputs) == ("town", "speed", "km/h", 0, "target")
    original = load_dataset(str(city / "city.csv"), adjacency=city / "g.csv")
    np.testing.assert_array_equal(data.values, original.values[..., ::-1])


def test_sensor_ids_that_are_no_list_are_refused(city):
    run(options(city))
    about = json.loads((city / "out" / "data.json").read_text())
    (city / "out" / "data.json").write_text(json.dumps(about | {"sensor_ids": "ba"}))
    with pytest.raises(InputError, match=r"data\.json: sensor_ids is 'ba', expected a list"):
        load_dataset(str(city / "out"))


def test_another_graph_is_matched_by_id(city):
    run(options(city))
    (city / "other.csv").write_text("from,to,weight\nb,a,3\n")
    assert load_dataset(str(city / "out")).adjacency.tolist() == [[0, 0], [0.5, 0]]
    assert load_dataset(str(city / "out"), adjacency=city / "other.csv").adjacency.tolist() == [[0, 3], [0, 0]]


def test_the_command_line_is_that_of_the_options(city):
    argv = [str(city / "city.csv"), str(city / "out"), "--adjacency", str(city / "g.csv"), "--null-value", "none"]
    assert parse(ConvertOptions, argv) == options(city, null_value="none")


@pytest.mark.parametrize("failing", ["graph", "write"])
def test_what_fails_leaves_nothing(city, monkeypatch, failing):
    before = sorted(city.iterdir())
    if failing == "graph":
        (city / "g.csv").write_text("from,to,weight\nx,y,1\n")
        error: type[Exception] = InputError
    else:

        def full(*_: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr("stlora_kernels.data.converted._runs", full)
        error = OSError
    with pytest.raises(error):
        run(options(city))
    assert sorted(city.iterdir()) == before


def refuse_room(file: int, start: int, size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("asks", [True, False], ids=["of-the-file-system", "by-what-is-free"])
def test_a_disk_too_small_for_the_values_is_one_line_before_they_are_read(city, monkeypatch, capsys, asks):
    before = sorted(city.iterdir())
    if asks:
        monkeypatch.setattr("os.posix_fallocate", refuse_room)
    else:  # as on macOS
        monkeypatch.delattr("os.posix_fallocate")
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    argv = ["convert", *map(str, (city / "city.csv", city / "out")), "--adjacency", str(city / "g.csv")]
    assert run_command(main, argv) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "No space left on device, 1,408 bytes are needed: " in err
    assert sorted(city.iterdir()) == before


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        pytest.param("city.csv", "is there already; choose another name or remove it", id="a-file"),
        pytest.param(".", "is there already", id="a-folder"),
        pytest.param("no/out", "no is no folder, so out cannot be made in it", id="no-parent"),
    ],
)
def test_destinations_that_cannot_be_are_refused(city, destination, message):
    with pytest.raises(InputError, match=message):
        run(options(city, destination))


def about(**changes):
    def change(folder):
        description = json.loads((folder / "data.json").read_text()) | changes
        (folder / "data.json").write_text(json.dumps(description))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda f: (f / "values.npy").unlink(), "no file .*values.npy", id="no-values"),
        pytest.param(lambda f: (f / "adjacency.npy").unlink(), "no file .*adjacency.npy", id="no-graph"),
        pytest.param(
            lambda f: (f / "values.npy").write_bytes((f / "values.npy").read_bytes()[:-8]),
            "values.npy is broken: .* it holds 1272",
            id="values-truncated",
        ),
        pytest.param(lambda f: np.save(f / "values.npy", np.ones((80, 2, 2))), "float64.*expected float32", id="dtype"),
        pytest.param(
            lambda f: np.save(f / "values.npy", np.ones((3, 2, 2), np.float32)), "expected 80 steps", id="other-steps"
        ),
        pytest.param(lambda f: np.save(f / "values.npy", np.array([{}])), "holds pickled objects", id="pickled"),
        pytest.param(lambda f: (f / "data.json").write_text("{"), "cannot be read as a data set's", id="broken-json"),
        pytest.param(lambda f: (f / "data.json").write_text("[]"), "expected format 1", id="list"),
        pytest.param(about(format=2), "expected format 1", id="later-format"),
        pytest.param(about(times=[["2024-01-01", 10**15]]), "1000000000000000 times, expected 80", id="huge-times"),
        pytest.param(about(times=[]), "cannot be read", id="no-times"),
        pytest.param(about(steps_per_day=0), "cannot be read", id="no-step"),
        pytest.param(about(sensor_ids=["a"]), "1 sensor ids for 2 sensors", id="ids"),
        pytest.param(about(inputs="some"), "inputs is 'some'", id="inputs"),
        pytest.param(about(split=[1]), "cannot be read", id="split"),
    ],
)
def test_a_damaged_folder_is_an_input_error(city, damage, message):
    run(options(city))
    damage(city / "out")
    with pytest.raises(InputError, match=message) as error:
        read_converted(city / "out")
    assert "\n" not in str(error.value)


def test_a_converted_folder_trains_by_its_path(city):
    pytest.importorskip("rich")
    from stlora_kernels.training.config import TrainConfig
    from stlora_kernels.training.experiment import load_data

    run(options(city))
    data = load_data(TrainConfig(dataset=str(city / "out"), fill="linear", window=6, horizon=3))
    assert data.in_features == 4
    assert data.train.gather(torch.tensor([0])).x.isfinite().all()
