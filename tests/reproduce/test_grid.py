"""Which runs an experiment is made of, in which order, and under which names."""

from dataclasses import replace
from pathlib import Path

import pytest

from stlora_kernels.errors import InputError
from stlora_kernels.reproduce.grid import cells_of, in_order, missing_data
from stlora_kernels.reproduce.options import ReproduceOptions
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.options import parse_train


def grid(experiment="table2", train_args="", **options):
    return cells_of(ReproduceOptions(experiment, **options), tuple(train_args.split()))


def names(cells):
    return [cell.name for cell in cells]


def test_all_models_with_seed_0_come_first_and_pairs_stand_together():
    cells = in_order(grid(datasets=("pems08",), backbones=("LSTM", "stgcn"), seeds=2).values())
    models = ["PEMS08-lstm", "PEMS08-lstm-stlora", "PEMS08-stgcn", "PEMS08-stgcn-stlora"]
    assert names(cells) == [f"{model}-seed{seed}" for seed in (0, 1) for model in models]


@pytest.mark.parametrize(
    ("experiment", "runs"),
    [
        pytest.param("table2", 5 * 2 * 6 + 2, id="table2"),  # six backbones, and VAR and SVR once
        pytest.param("table3", 5 * 2 * 6, id="table3"),
        pytest.param("figure4", 5 * 2 * 6, id="figure4"),
        pytest.param("figure5", 5 * (1 + 4 * 4), id="figure5"),
    ],
)
def test_by_default_an_experiment_is_the_papers(experiment, runs):
    (cells,) = grid(experiment).values()
    assert len(set(names(cells))) == len(cells) == runs
    assert {cell.config.dataset for cell in cells} >= {"PEMS04"}


def test_a_run_that_several_experiments_show_is_one_run():
    grids = grid("all")
    assert set(names(grids["figure4"])) < set(names(grids["table2"]))
    assert "PEMS04-stgcn-stlora-seed0" in names(grids["figure5"])  # 4 layers of rank 16, as everywhere
    assert "PEMS04-stgcn-stlora-L2-r8-seed0" in names(grids["figure5"])
    cells = in_order(grids.values())
    assert len(set(names(cells))) == len(cells)
    assert [cell.config.seed for cell in cells] == sorted(cell.config.seed for cell in cells)


def test_a_baseline_has_one_run_and_no_pair():
    (cells,) = grid(backbones=("var", "lstm"), seeds=3).values()
    assert names(cells).count("PEMS04-var-seed0") == 1
    assert len(cells) == 1 + 2 * 3


def test_the_arguments_make_the_configuration_that_the_result_is_compared_with():
    (cells,) = grid("figure5", "--max-batches 2", data=Path("data"), epochs=3, seeds=2, ranks=(8,)).values()
    for cell in cells:
        config, call = parse_train(cell.arguments())
        assert config == cell.config
        assert not any(call.values())


def test_options_for_every_run_make_other_runs_and_those_of_the_adapter_only_with_it():
    plain, adapted = names(grid(seeds=1, backbones=("lstm",))["table2"])
    quick = names(grid("table2", "--max-batches=2", seeds=1, backbones=("lstm",))["table2"])
    core = names(grid("table2", "--adapter.factor core", seeds=1, backbones=("lstm",))["table2"])
    assert len({plain, adapted, *quick}) == 4
    assert core[0] == plain
    assert core[1] != adapted
    assert quick == names(grid("table2", "--max-batches 2", seeds=1, backbones=("lstm",))["table2"])
    assert names(grid("table2", "--device cpu", seeds=1, backbones=("lstm",))["table2"]) == [plain, adapted]


def test_epochs_are_part_of_the_name():
    assert names(grid(seeds=1, epochs=7, backbones=("lstm",))["table2"])[0] == "PEMS04-lstm-epochs7-seed0"


def test_a_cell_and_its_pair_differ_in_the_adapter_alone():
    (cells,) = grid("table2", "--adapter.rank 8", seeds=1, backbones=("lstm",)).values()
    assert cells[1].plain == cells[0]
    assert replace(cells[0].config, stlora=True) == cells[1].config


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"datasets": ("PEMS9",)}, ["--datasets", "'PEMS9'", "PEMS08", "synthetic"], id="data-set"),
        pytest.param({"backbones": ("gru",)}, ["--backbones", "'gru'", "lstm", "var"], id="backbone"),
        pytest.param({"experiment": "table3", "backbones": ("var",)}, ["--backbones", "var", "stgcn"], id="baseline"),
        pytest.param({"train_args": "--seed 3"}, ["--seed 3", "the grid sets"], id="seed"),
        pytest.param({"train_args": "--stlora"}, ["--stlora", "the grid sets"], id="stlora"),
        pytest.param({"train_args": "--overwrite"}, ["--overwrite", "the grid sets"], id="overwrite"),
        pytest.param({"train_args": "--output x"}, ["--output x", "the grid sets"], id="output"),
        pytest.param({"experiment": "figure5", "train_args": "--adapter.rank 8"}, ["--adapter.rank 8"], id="rank"),
        pytest.param({"train_args": "--epochs 3", "epochs": 4}, ["--epochs 4", "--epochs 3"], id="epochs-twice"),
        pytest.param({"train_args": "--max-batches 0"}, ["--max-batches", "0"], id="train-refuses"),
        pytest.param({"train_args": "--nonsense 0"}, ["--nonsense"], id="unknown-to-train"),
    ],
)
def test_what_cannot_be_run_is_refused(options, words):
    with pytest.raises(InputError) as refused:
        grid(**options)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"seeds": 0}, ["--seeds", "0"], id="seeds"),
        pytest.param({"jobs": -1}, ["--jobs", "-1"], id="jobs"),
        pytest.param({"epochs": 0}, ["--epochs", "0"], id="epochs"),
        pytest.param({"experiment": "figure5", "layers": (2, 0)}, ["--layers", "0"], id="layers"),
        pytest.param({"budget": -1.0}, ["--budget", "-1"], id="budget"),
        pytest.param({"budget": float("nan")}, ["--budget", "nan"], id="budget-nan"),
        pytest.param({"datasets": ()}, ["--datasets", "nothing"], id="no-data-set"),
        pytest.param({"ranks": (8,)}, ["--ranks", "figure5", "table2", "--adapter.rank "], id="ranks-elsewhere"),
    ],
)
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(InputError) as refused:
        ReproduceOptions(**{"experiment": "table2"} | options).validate()
    for word in words:
        assert word in str(refused.value)


def test_missing_data_are_found_before_anything_is_run(tmp_path):
    (tmp_path / "PEMS08").mkdir()
    (tmp_path / "PEMS08" / "PEMS08.npz").touch()
    datasets = ("PEMS08", "METR-LA", "synthetic", str(tmp_path / "my.csv"))
    (cells,) = grid(datasets=datasets, backbones=("lstm",), seeds=1, data=tmp_path).values()
    missing = missing_data(cells)
    assert set(missing) == {"METR-LA", str(tmp_path / "my.csv")}
    assert "metr-la.h5" in str(missing["METR-LA"])


def test_defaults_of_the_grid_are_those_of_training():
    (cells,) = grid(seeds=1, backbones=("lstm",)).values()
    assert cells[0].config == replace(TrainConfig(), dataset="PEMS04", backbone="lstm")
