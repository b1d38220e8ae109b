"""The options of ``python -m stlora_kernels.reproduce``; the text under each field is its help."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stlora_kernels.errors import InputError
from stlora_kernels.training.config import MAX_SIZE

Experiment = Literal["table2", "table3", "figure4", "figure5"]


@dataclass(frozen=True)
class ReproduceOptions:
    """What to run, on what, for how long."""

    experiment: tyro.conf.Positional[Literal["table2", "table3", "figure4", "figure5", "all"]]
    """table2: every backbone with the adapter ("+") and without, and the classical baselines, on one data set;
    table3: one backbone, with and without, on every data set;
    figure4: seconds per epoch and parameters of every backbone, with and without (the runs of table2);
    figure5: layers x rank of the adapter, one backbone;
    all: the four"""
    data: Annotated[Path | None, tyro.conf.arg(aliases=("--data-dir",))] = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""
    datasets: tuple[str, ...] | None = None
    """as train's --dataset, synthetic included; by default the paper's: PEMS04, and for table3 all six"""
    backbones: tuple[str, ...] | None = None
    """as train's --backbone; by default the paper's: all, and for table3 and figure5 stgcn"""
    seeds: int = 5
    """runs of every model, with seeds 0, 1, ...; first all models with seed 0, so that a part of the grid compares"""
    epochs: int | None = None
    """at most so many; by default as published for the backbone and the data set"""
    layers: tuple[int, ...] | None = None
    """of figure5; by default 1 2 4 6 (the paper's text does not say which)"""
    ranks: tuple[int, ...] | None = None
    """of figure5; by default 4 8 12 16 (the paper's text does not say which)"""
    jobs: int = 1
    """trainings at a time, which share the cores; seconds per epoch to be quoted need 1"""
    budget: float | None = None
    """minutes after which trainings are stopped and what is done is shown; 0: only show. By default no end"""
    output: Path = Path("runs/reproduce")
    """folder of the tables and pictures, and of the runs, which all experiments share"""

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """The one that was named, or all."""
        return ("table2", "table3", "figure4", "figure5") if self.experiment == "all" else (self.experiment,)

    def validate(self) -> None:
        """Check every value that needs nothing else to be judged.

        Raises:
            InputError: naming the option, what was given and what was expected.
        """
        counts = {"seeds": (self.seeds,), "jobs": (self.jobs,), "layers": self.layers or (), "ranks": self.ranks or ()}
        if self.epochs is not None:
            counts["epochs"] = (self.epochs,)
        for name, values in counts.items():
            for value in values:
                if not 1 <= value <= MAX_SIZE:
                    raise InputError(f"--{name}: got {value}, expected an integer from 1 to {MAX_SIZE}")
        if self.budget is not None and not 0 <= self.budget < math.inf:
            raise InputError(f"--budget: got {self.budget:g}, expected minutes, a number of at least 0")
        lists = {"datasets": self.datasets, "backbones": self.backbones, "layers": self.layers, "ranks": self.ranks}
        for name, given in lists.items():
            if given is not None and not given:
                raise InputError(f"--{name}: got nothing, expected at least one")
            if "figure5" not in self.experiments and name in ("layers", "ranks") and given is not None:
                every = f"-- --adapter.{name.replace('ranks', 'rank')}"
                raise InputError(
                    f"--{name} is an option of figure5; in {self.experiment}, {every} sets it in every run"
                )
