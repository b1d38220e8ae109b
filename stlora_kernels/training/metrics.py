"""Which targets count, and the errors over them: sums and counts per horizon step, never means of batches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stlora_kernels.data.missing import NULL_TOLERANCE, valid_mask
from stlora_kernels.errors import InputError


class Errors(NamedTuple):
    """Errors over so many measured ``targets``; NaN where there is none (``mape``: none away from zero)."""

    mae: float  # unit of the target
    rmse: float  # unit of the target
    mape: float  # percent
    targets: int


class Scores(NamedTuple):
    """Errors at every step of the horizon, and both averages over it that are in use.

    ``mean_of_steps`` is the mean of the steps' errors (of those steps that have any measured target);
    ``pooled`` takes all targets of all steps as one set. They differ most for the RMSE.
    """

    steps: tuple[Errors, ...]
    mean_of_steps: Errors
    pooled: Errors

    def as_dict(self) -> dict[str, object]:
        """Nested plain types; NaN becomes ``None``, which JSON can hold."""
        return {
            "steps": [_plain(errors) for errors in self.steps],
            "mean_of_steps": _plain(self.mean_of_steps),
            "pooled": _plain(self.pooled),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scores":
        """What ``as_dict`` made, to the digit."""
        steps = tuple(_from_plain(errors) for errors in values["steps"])
        return cls(steps, _from_plain(values["mean_of_steps"]), _from_plain(values["pooled"]))


class ScoreMeter:
    """Streaming masked MAE, RMSE and MAPE of forecasts ``[B, H, N, C]`` in real units.

    Only five float64 sums per horizon step are kept, so the result depends neither on the batch size nor on
    a partial last batch, and no forecast has to be stored. MAPE leaves out targets within 5e-5 of zero,
    whatever ``null_value`` says, so it is never infinite.
    """

    def __init__(self, horizon: int, null_value: float | None, device: torch.device | str = "cpu") -> None:
        self.horizon = horizon
        self.null_value = null_value
        # Rows: |e|, e^2, |e / y|, targets, targets away from zero.
        self.sums = torch.zeros(5, horizon, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add one batch; both ``[B, H, N, C]`` of the same shape.

        Raises:
            InputError: if the shapes differ or their horizon is not the meter's.
        """
        if prediction.shape != target.shape or target.ndim != 4 or target.shape[1] != self.horizon:
            raise InputError(
                f"prediction {list(prediction.shape)} and target {list(target.shape)}: "
                f"expected one shape [B, {self.horizon}, N, C]"
            )
        valid = valid_mask(target, self.null_value)
        nonzero = valid & (target.abs() >= NULL_TOLERANCE)
        error = torch.where(valid, prediction.double() - target.double(), 0.0).abs()  # [B, H, N, C]
        relative = torch.where(nonzero, error / target.double().abs(), 0.0)
        over = (0, 2, 3)
        self.sums += torch.stack(
            [
                error.sum(over),
                error.square().sum(over),
                relative.sum(over),
                valid.sum(over),
                nonzero.sum(over),
            ]
        )

    def compute(self) -> Scores:
        """The errors of everything added so far."""
        columns = self.sums.T.tolist()  # H x 5
        steps = tuple(_errors(column) for column in columns)
        mean_of_steps = Errors(
            mae=_mean([step.mae for step in steps if step.targets]),
            rmse=_mean([step.rmse for step in steps if step.targets]),
            # A step may have targets and yet none away from zero.
            mape=_mean([step.mape for step, sums in zip(steps, columns, strict=True) if sums[4]]),
            targets=sum(step.targets for step in steps),
        )
        return Scores(steps, mean_of_steps, _errors([sum(row) for row in zip(*columns, strict=True)]))


def _errors(sums: Sequence[float]) -> Errors:
    absolute, squared, relative, count, nonzero = sums
    return Errors(
        mae=absolute / count if count else math.nan,
        rmse=math.sqrt(squared / count) if count else math.nan,
        mape=100 * relative / nonzero if nonzero else math.nan,
        targets=int(count),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _plain(errors: Errors) -> dict[str, float | int | None]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in errors._asdict().items()
    }


def _from_plain(values: Mapping[str, Any]) -> Errors:
    mae, rmse, mape = (math.nan if values[name] is None else values[name] for name in ("mae", "rmse", "mape"))
    return Errors(mae, rmse, mape, values["targets"])
