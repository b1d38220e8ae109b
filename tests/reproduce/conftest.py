"""Experiments without training: results of any numbers, and a program that stands for the training."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reproduce_cases import mae_of, metrics_of

from stlora_kernels.reproduce.grid import Cell, cells_of, in_order
from stlora_kernels.reproduce.options import ReproduceOptions
from stlora_kernels.reproduce.results import GridResults, Result

FAKE = Path(__file__).parent / "fake_train.py"


@pytest.fixture
def grid_of() -> Callable[..., GridResults]:
    """An experiment of which the first ``done`` cells are done."""

    def grid_of(experiment="table2", done=None, mae=mae_of, **options):
        options = {"datasets": ("PEMS08",), "backbones": ("lstm",), "seeds": 3} | options
        (cells,) = cells_of(ReproduceOptions(experiment, **options)).values()
        results = {cell.name: Result(cell, metrics_of(cell, mae(cell))) for cell in cells[:done]}
        return GridResults(experiment, cells, results)

    return grid_of


@pytest.fixture
def fake_training(tmp_path, monkeypatch) -> Callable[..., list[Cell]]:
    """Puts the fake in place of the training, and prepares what it answers for every cell.

    ``how`` maps a part of a cell's name to what its run does in place of succeeding: see ``fake_train.py``.
    """
    answers = tmp_path / "answers"
    answers.mkdir()
    monkeypatch.setattr("stlora_kernels.reproduce.runner.TRAIN", (sys.executable, str(FAKE)))
    monkeypatch.setenv("FAKE_ANSWERS", str(answers))

    def prepare(options, train_args=(), how=None):
        cells = in_order(cells_of(options, train_args).values())
        for cell in cells:
            kind = next((kind for part, kind in (how or {}).items() if part in cell.name), "succeed")
            answer = {"metrics": metrics_of(cell, mae_of(cell)), "how": kind}
            (answers / f"{cell.name}.json").write_text(json.dumps(answer))
        return cells

    return prepare
