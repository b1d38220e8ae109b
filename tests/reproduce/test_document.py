"""Tables, csv and pictures of whole and of partial grids."""

import csv
import datetime
import io

import matplotlib.image
import pytest

from stlora_kernels.reproduce.document import document, runs_csv, state, table_csv
from stlora_kernels.reproduce.figures import save_figure
from stlora_kernels.reproduce.tables import costs_table, differences_table, label, sweeps, tables_of

TODAY = datetime.date(2030, 1, 2)


def row_of(table, *start):
    """The row that has these texts behind the data set and the model."""
    (row,) = [row for row in table.rows if row[2 : 2 + len(start)] == start]
    return dict(zip(table.header[2:], row[2:], strict=True))


def test_a_row_has_mean_spread_difference_interval_p_and_seeds(grid_of):
    row = row_of(differences_table(grid_of().pairs()), "MAE", "pooled")
    # 10, 11, 12 without, 9, 9.9, 10.8 with: differences -1, -1.1, -1.2; 1.1 -+ 4.302653 * 0.1 / sqrt(3).
    assert row["without"] == "11.000 ± 1.000"
    assert row["+"] == "9.900 ± 0.900"
    assert row["difference"] == "-1.100 ± 0.100"
    assert row["95 % interval"] == "[-1.348, -0.852]"
    assert row["p"] == "0.003"
    assert row["seeds"] == "3"


def test_every_error_stands_at_every_place(grid_of):
    rows = differences_table(grid_of().pairs()).rows
    places = ["15 min", "30 min", "60 min", "mean of steps", "pooled"]
    assert [row[2:4] for row in rows] == [(kind, at) for kind in ("MAE", "RMSE", "MAPE %") for at in places]


def test_one_seed_has_no_interval(grid_of):
    row = row_of(differences_table(grid_of(seeds=1).pairs()), "MAE", "pooled")
    assert (row["without"], row["difference"]) == ("10.000", "-1.000")
    assert (row["95 % interval"], row["p"], row["seeds"]) == ("-", "-", "1")


def test_a_model_without_its_pair_stands_alone(grid_of):
    row = row_of(differences_table(grid_of(done=1).pairs()), "MAE", "pooled")
    assert (row["without"], row["+"], row["difference"]) == ("10.000", "-", "-")
    assert row["seeds"] == "1 without, 0 +"


def test_costs_are_parameters_and_seconds_with_their_overhead(grid_of):
    table = costs_table(grid_of().pairs())
    (row,) = table.rows
    assert row[2:5] == ("1,000", "7,400", "+640.0 %")
    assert row[5:8] == ("2.000 ± 0.000", "2.000 ± 0.000", "+0.0 %")
    assert row[-3:] == ("3", "2 2 2", "2 2 2")


def test_the_document_says_what_it_is_of(grid_of):
    text = document(grid_of(backbones=("lstm", "var")), {}, TODAY)
    for words in (
        "**complete: 7 runs**",
        "PEMS08 (measured): flow in veh/5min, 170 sensors, 7156 steps of 5 min from 2016-08-07T03:40",
        "(a part: the full set has 170 and 17856)",
        "4280/1427/1426 windows",
        "seeds 0, 1, 2; epochs as published",
        "cpu, 1 thread(s)",
        "torch 2.13.0; 2030-01-02",
        "| HA (last value) |",
        "| var ",
        '"pooled" takes all targets as one set',
    ):
        assert words in text
    assert "Not done" not in text


def test_a_partial_document_says_so_and_what_is_not_done(grid_of):
    grid = grid_of(done=3, epochs=20)
    text = document(grid, {"PEMS08-lstm-stlora-epochs20-seed1": "the loss is nan"}, TODAY)
    assert state(grid) == "partial: 3 of 6 runs"
    assert "**partial: 3 of 6 runs**" in text
    assert "Not done: PEMS08-lstm-stlora-epochs20-seed1, PEMS08-lstm-epochs20-seed2, " in text
    assert "Failed: PEMS08-lstm-stlora-epochs20-seed1: the loss is nan" in text
    assert "at most 20 epochs" in text


def test_synthetic_data_are_called_so_everywhere(grid_of):
    grid = grid_of(datasets=("synthetic",))
    assert "synthetic (synthetic, not measured)" in document(grid, {}, TODAY)
    for table in tables_of(grid):
        assert all(row[0] == "synthetic (not measured)" for row in table.rows)
    rows = list(csv.DictReader(io.StringIO(table_csv(grid))))
    assert {row["synthetic"] for row in rows} == {"True"}


def test_several_data_sets_stand_one_after_the_other(grid_of):
    grid = grid_of("table3", datasets=("PEMS08", "PEMS03"), backbones=("stgcn",), seeds=2)
    data = [row[0] for row in differences_table(grid.pairs()).rows]
    assert data == ["PEMS08"] * 15 + ["PEMS03"] * 15


def test_the_csv_has_the_numbers_in_full_and_says_what_they_are_of(grid_of):
    rows = list(csv.DictReader(io.StringIO(table_csv(grid_of(done=5)))))
    (mae,) = [row for row in rows if (row["what"], row["at"]) == ("MAE", "pooled")]
    assert mae["grid"] == "partial: 5 of 6 runs"
    assert (mae["name"], mae["steps"], mae["nodes"], mae["seeds"]) == ("PEMS08", "7156", "170", "0 1")
    assert float(mae["difference"]) == pytest.approx(-1.05)
    assert float(mae["p"]) == pytest.approx(0.0303, abs=1e-4)
    (parameters,) = [row for row in rows if row["what"] == "parameters"]
    assert (parameters["plain"], parameters["plus"], parameters["p"]) == ("1000", "7400", "")


def test_the_runs_csv_has_a_row_per_run(grid_of):
    rows = list(csv.DictReader(io.StringIO(runs_csv(grid_of(backbones=("var", "lstm"), done=3)))))
    assert [row["run"] for row in rows] == ["PEMS08-var-seed0", "PEMS08-lstm-seed0", "PEMS08-lstm-stlora-seed0"]
    assert [row["seconds per epoch"] for row in rows] == ["", "2.0", "2.0"]
    assert [float(row["MAE pooled"]) for row in rows] == [10.0, 10.0, 9.0]


def test_the_sweep_compares_sizes_over_the_same_seeds(grid_of):
    options = {"backbones": ("stgcn",), "layers": (1, 2), "ranks": (4, 16), "seeds": 2}
    (whole,) = sweeps(grid_of("figure5", **options).pairs())
    assert whole.seeds == (0, 1)
    assert whole.cell(1, 4) == "9.450 ± 0.636"  # 9 and 9.9
    (part,) = sweeps(grid_of("figure5", done=7, **options).pairs())  # seed 1: without, and one size
    assert part.seeds == (0,)
    assert part.cell(1, 4) == "9.000"
    (begun,) = sweeps(grid_of("figure5", done=2, **options).pairs())
    assert [begun.cell(1, 4), begun.cell(2, 16)] == ["9.000", "-"]


def test_sizes_are_named_where_they_differ(grid_of):
    pairs = grid_of("figure5", backbones=("stgcn",), layers=(1, 2), ranks=(4,), seeds=1).pairs()
    assert [label(pair, pairs) for pair in pairs] == ["stgcn, 1 layer, rank 4", "stgcn, 2 layers, rank 4"]


@pytest.mark.parametrize("experiment", ["table2", "table3", "figure4", "figure5"])
@pytest.mark.parametrize("done", [None, 1, 3], ids=["complete", "one-run", "partial"])
@pytest.mark.filterwarnings("error")
def test_every_experiment_has_tables_and_a_picture(experiment, done, grid_of, tmp_path):
    grid = grid_of(experiment, done, backbones=("stgcn", "lstm"), seeds=2)
    assert "| " in document(grid, {}, TODAY)
    assert save_figure(grid, tmp_path / "picture.png")
    assert matplotlib.image.imread(tmp_path / "picture.png").std() > 0.01
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_without_a_pair_there_is_no_picture(grid_of, tmp_path):
    assert not save_figure(grid_of(backbones=("var",)), tmp_path / "picture.png")
