"""What the runs of a grid left: each one read from its ``metrics.json``, and all of them as pairs."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stlora_kernels.errors import InputError
from stlora_kernels.reproduce.grid import Cell, options_of
from stlora_kernels.reproduce.options import Experiment
from stlora_kernels.training.run_folder import METRICS

ERRORS = {"MAE": "mae", "RMSE": "rmse", "MAPE %": "mape"}
AVERAGES = {"mean of steps": "mean_of_steps", "pooled": "pooled"}
DATA = ("nodes", "steps", "first_step", "last_step", "windows", "scaler")  # what all runs of a set have to agree on


@dataclass(frozen=True)
class Result:
    """A finished run."""

    cell: Cell
    metrics: Mapping[str, Any]

    def errors(self, model: str | None = None) -> dict[tuple[str, str], float]:
        """Test errors by kind and place, such as ("MAE", "15 min") or ("RMSE", "pooled"); NaN where undefined.

        Args:
            model: a name in the run's own table; by default what was trained. HA stands there too.
        """
        scores = self.metrics["test"][model or self.metrics["model"]]
        places = {label: scores["steps"][step - 1] for label, step in self.metrics["columns"].items()}
        places |= {label: scores[key] for label, key in AVERAGES.items()}
        found = {(kind, at): errors[key] for kind, key in ERRORS.items() for at, errors in places.items()}
        return {key: math.nan if value is None else value for key, value in found.items()}

    @property
    def seconds(self) -> float:
        """Of training per epoch, the median; of a baseline NaN."""
        return float(self.metrics.get("seconds_per_epoch", math.nan))

    @property
    def epochs_allowed(self) -> int | None:
        """As asked for or published; None of a baseline, which knows none."""
        return None if self.cell.is_fitted else int(self.metrics["config"]["epochs"])

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return int(self.metrics["parameters"]["total"])


@dataclass(frozen=True)
class Pair:
    """The runs of a model without and with the adapter, by seed."""

    dataset: str
    backbone: str
    layers: int
    rank: int
    plain: dict[int, Result] = field(default_factory=dict)
    adapted: dict[int, Result] = field(default_factory=dict)

    @property
    def any(self) -> Result:
        """One of the runs."""
        return next(iter((self.plain | self.adapted).values()))


@dataclass(frozen=True)
class GridResults:
    """An experiment, as far as it is done."""

    experiment: Experiment
    cells: list[Cell]
    results: Mapping[str, Result]  # by the cell's name

    @property
    def done(self) -> list[Result]:
        """In the order of the grid."""
        return [self.results[cell.name] for cell in self.cells if cell.name in self.results]

    @property
    def missing(self) -> list[str]:
        """The names of the runs that are not done."""
        return [cell.name for cell in self.cells if cell.name not in self.results]

    @property
    def datasets(self) -> dict[str, Result]:
        """Every data set with one of its runs."""
        found: dict[str, Result] = {}
        for result in self.done:
            found.setdefault(result.cell.config.dataset, result)
        return found

    def pairs(self) -> list[Pair]:
        """What can be compared, data set by data set; those without any run are left out."""
        pairs: dict[tuple[str, str, int, int], Pair] = {}
        for cell in self.cells:
            config = cell.config
            if not config.stlora:
                continue
            key = (config.dataset, config.backbone, config.adapter.layers, config.adapter.rank)
            pair = pairs.setdefault(key, Pair(*key))
            for runs, one in ((pair.plain, cell.plain), (pair.adapted, cell)):
                if one.name in self.results:
                    runs[config.seed] = self.results[one.name]
        found = [pair for pair in pairs.values() if pair.plain or pair.adapted]
        order = list(dict.fromkeys(pair.dataset for pair in found))
        return sorted(found, key=lambda pair: order.index(pair.dataset))

    def fitted(self) -> list[Result]:
        """The classical baselines."""
        return [result for result in self.done if result.cell.is_fitted]


def collect(runs: Path, cells: Iterable[Cell]) -> dict[str, Result]:
    """The cells that are done, by name.

    Raises:
        InputError: if a run folder holds a run of other options, or of other data than another of the same set.
    """
    found: dict[str, Result] = {}
    of_set: dict[str, Result] = {}
    for cell in cells:
        result = _read(runs / cell.name, cell)
        if result is None:
            continue
        found[cell.name] = result
        first = of_set.setdefault(cell.config.dataset, result)
        for name in DATA:
            here, there = (one.metrics["data"][name] for one in (result, first))
            if here != there:
                raise InputError(
                    f"{runs}: {cell.name} and {first.cell.name} are runs on different data: {name} {here} and {there}; "
                    "choose another --output, or remove those of the wrong data"
                )
    return found


def _read(folder: Path, cell: Cell) -> Result | None:
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        there, here = options_of(metrics["config"]), options_of(cell.config.complete().as_dict())
        result = Result(cell, metrics)
        result.errors()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / METRICS} is not the result of a run ({type(error).__name__}: {error}); remove that folder"
        ) from error
    for name in here.keys() & there.keys():
        if here[name] != there[name]:
            raise InputError(
                f"{folder} holds a run with --{name.replace('_', '-')} {there[name]}, expected {here[name]}; choose "
                "another --output, or remove that folder"
            )
    return result
