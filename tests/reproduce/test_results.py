"""Results are read back, and those that do not belong to the grid are refused."""

import json

import pytest
from reproduce_cases import metrics_of

from stlora_kernels.errors import InputError
from stlora_kernels.reproduce.grid import cells_of
from stlora_kernels.reproduce.options import ReproduceOptions
from stlora_kernels.reproduce.results import collect


@pytest.fixture
def cells():
    options = ReproduceOptions("table2", datasets=("PEMS08",), backbones=("lstm", "var"), seeds=2, epochs=3)
    return cells_of(options)["table2"]


def keep(runs, cell, metrics=None, **data):
    folder = runs / cell.name
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics or metrics_of(cell, **data)))


def test_what_is_done_is_found(tmp_path, cells):
    for cell in cells[1:3]:
        keep(tmp_path, cell, mae=cell.config.seed + 0.5)
    (tmp_path / cells[0].name).mkdir()  # begun
    found = collect(tmp_path, cells)
    assert sorted(found) == sorted(cell.name for cell in cells[1:3])
    result = found[cells[1].name]
    assert result.errors()["MAE", "pooled"] == cells[1].config.seed + 0.5
    assert result.errors()["RMSE", "15 min"] == pytest.approx(2 * (cells[1].config.seed + 0.8))
    assert result.errors("HA (last value)")["MAE", "mean of steps"] == 20.5


@pytest.mark.parametrize("name", ["output", "data_dir", "device", "save_minutes"])
def test_where_a_run_was_made_does_not_matter(tmp_path, cells, name):
    metrics = metrics_of(cells[0])
    metrics["config"][name] = "elsewhere"
    keep(tmp_path, cells[0], metrics)
    assert list(collect(tmp_path, cells)) == [cells[0].name]


def test_options_of_an_adapter_do_not_matter_without_one(tmp_path, cells):
    metrics = metrics_of(cells[0])
    metrics["config"]["adapter"]["rank"] = 3
    keep(tmp_path, cells[0], metrics)
    assert collect(tmp_path, cells)


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.5), ("epochs", 2), ("batch_size", 8)])
def test_a_run_of_other_options_is_refused(tmp_path, cells, name, value):
    metrics = metrics_of(cells[0])
    metrics["config"][name] = value
    keep(tmp_path, cells[0], metrics)
    with pytest.raises(InputError, match=f"{cells[0].name} holds a run with --{name.replace('_', '-')} {value}, exp"):
        collect(tmp_path, cells)


def test_runs_on_other_data_are_not_mixed(tmp_path, cells):
    keep(tmp_path, cells[0])
    keep(tmp_path, cells[1], steps=17856)
    with pytest.raises(InputError, match="different data: steps 17856 and 7156"):
        collect(tmp_path, cells)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {}}'])
def test_what_is_no_result_is_refused(tmp_path, cells, text):
    keep(tmp_path, cells[0])
    (tmp_path / cells[0].name / "metrics.json").write_text(text)
    with pytest.raises(InputError, match="is not the result of a run"):
        collect(tmp_path, cells)


def test_undefined_errors_are_read_as_nan(tmp_path, cells):
    metrics = metrics_of(cells[0])
    metrics["test"]["lstm"]["pooled"]["mape"] = None
    keep(tmp_path, cells[0], metrics)
    value = collect(tmp_path, cells)[cells[0].name].errors()["MAPE %", "pooled"]
    assert value != value
