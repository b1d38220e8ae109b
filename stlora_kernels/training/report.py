"""The result of a run: a table for the reader and ``metrics.json`` for programs."""

import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import stlora_kernels
from stlora_kernels.data import ForecastData, SensorData
from stlora_kernels.errors import require
from stlora_kernels.training.metrics import Errors, Scores

STEPS = (3, 6, 12)  # 15, 30 and 60 minutes ahead with the usual steps of 5 minutes
MINUTES_PER_DAY = 1440


@dataclass(frozen=True)
class Report:
    """The test errors of a model and of the baselines beside it (first the model), with what they were measured on."""

    data: ForecastData
    scores: Mapping[str, Scores]
    parameters: Mapping[str, float | int]
    notes: tuple[str, ...] = ()

    def columns(self) -> dict[str, int]:
        """The horizon steps of the table by their label: 3, 6 and 12, or those that exist, or the last."""
        minutes = MINUTES_PER_DAY / self.data.data.steps_per_day
        steps = [step for step in STEPS if step <= self.data.horizon] or [self.data.horizon]
        return {f"{step * minutes:g} min": step for step in steps}

    def title(self) -> str:
        """What was measured, and whether it was measured at all."""
        data = self.data.data
        origin = " (synthetic data, not measured)" if data.synthetic else ""
        return f"{data.name}{origin}: test errors, {data.quantity} in {data.unit or 'its own unit'}"

    def print(self) -> None:
        """Print the table, the parameter counts and the notes to stdout."""
        rich_table, rich_console = require("rich.table", "train"), require("rich.console", "train")
        table = rich_table.Table(title=self.title(), title_justify="left")
        table.add_column("model")
        table.add_column("error")
        for label in (*self.columns(), "mean of\nsteps", "pooled"):
            table.add_column(label, justify="right")
        for name, scores in self.scores.items():
            shown = [scores.steps[step - 1] for step in self.columns().values()]
            shown += [scores.mean_of_steps, scores.pooled]
            for row, (label, field) in enumerate((("MAE", "mae"), ("RMSE", "rmse"), ("MAPE %", "mape"))):
                cells = [_cell(errors, field) for errors in shown]
                table.add_row(name if row == 0 else "", label, *cells, end_section=row == 2)
        # A pipe or a file has no width; 80 columns would break the lines of this table.
        width = None if sys.stdout.isatty() else 120
        console = rich_console.Console(width=width, markup=False, highlight=False, emoji=False)
        console.print(table)
        console.print(f"Averages over {self.data.horizon} steps. Missing targets ({self._missing()}) are left out.")
        for line in (self._parameter_line(), *self.notes):
            console.print(line, soft_wrap=True)

    def _missing(self) -> str:
        null_value = self.data.null_value
        return "NaN" if null_value is None else f"{null_value:g} or NaN"

    def _parameter_line(self) -> str:
        counts = self.parameters
        line = f"Parameters: {counts['total']:,}"
        if "adapter" in counts:
            line += (
                f" = backbone {counts['backbone']:,} + adapter {counts['adapter']:,}"
                f" (overhead {counts['overhead_percent']:.1f} %)"
            )
        return line

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain types, per-step errors included."""
        data: SensorData = self.data.data
        overhead = {key: value if math.isfinite(value) else None for key, value in self.parameters.items()}
        return {
            "data": {
                "name": data.name,
                "synthetic": data.synthetic,
                "quantity": data.quantity,
                "unit": data.unit,
                "nodes": data.num_nodes,
                "steps": data.num_steps,
                "first_step": str(data.times[0]),
                "last_step": str(data.times[-1]),
                "steps_per_day": data.steps_per_day,
                "null_value": self.data.null_value,
                "windows": {part: len(getattr(self.data, part)) for part in ("train", "val", "test")},
                "scaler": self.data.scaler.state_dict(),
            },
            "columns": self.columns(),
            "test": {name: scores.as_dict() for name, scores in self.scores.items()},
            "parameters": overhead,
        }


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {
        "stlora_kernels": stlora_kernels.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _cell(errors: Errors, field: str) -> str:
    value = getattr(errors, field)
    # No target, no error; a NaN in spite of targets is the model's and stays visible.
    if errors.targets == 0 or (field == "mape" and math.isnan(value) and not math.isnan(errors.mae)):
        return "-"
    return f"{value:.2f}" if abs(value) >= 1 or math.isnan(value) else f"{value:.3g}"
