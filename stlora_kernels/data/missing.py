"""What counts as missing, and the filling of a window's inputs from its own measurements."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stlora_kernels.errors import InputError

Fill = Literal["none", "last", "linear"]
NullValue = Literal["dataset", "none"] | float

# The field's rule for "equal to the missing value" (DCRNN's and LargeST's masks).
NULL_TOLERANCE = 5e-5


def null_value_of(asked: NullValue, own: float | None, name: str = "null_value") -> float | None:
    """The value that means missing: "dataset" is the data's ``own``, "none" None, beside NaN; ``name`` opens the error.

    Raises:
        InputError: if it is neither of them nor a finite number.
    """
    if asked == "dataset":
        return own
    if asked == "none":
        return None
    if isinstance(asked, str) or not math.isfinite(asked):
        raise InputError(f"{name}: got {asked}, expected a finite number, dataset or none")
    return float(asked)


def valid_mask(values: Tensor, null_value: float | None) -> Tensor:
    """True where a value is a measurement: ``not isnan(v) and |v - null_value| >= 5e-5``.

    Args:
        values: any shape, in real units.
        null_value: the value that means "missing"; ``None``: only NaN does.
    """
    valid = ~torch.isnan(values)
    if null_value is None:
        return valid
    return valid & ((values - null_value).abs() >= NULL_TOLERANCE)


def is_measured(values: np.ndarray, null_value: float | None) -> np.ndarray:
    """``isfinite(v) and |v - null_value| >= 5e-5``, of the shape of ``values``; None: every finite value is one."""
    measured = np.isfinite(values)
    if null_value is not None:
        measured &= np.abs(values - np.float32(null_value)) >= NULL_TOLERANCE
    return measured


def fill_missing(values: Tensor, valid: Tensor, how: Fill) -> Tensor:
    """Windows in which missing values are replaced by what the same window measured.

    "last": the measurement before it; before the first one of the window there is none, and NaN stays. "linear":
    on the straight line between the measurements before and after it; before the first and after the last one that
    one. Nothing outside the window is used, and a sensor that measured nothing in it keeps NaN.

    Args:
        values: ``[B, T, ...]``, real units.
        valid: bool, of the same shape: where ``values`` are measurements.
        how: "last" or "linear"; "none" gives ``values`` back as they are, null values included.
    """
    if how == "none":
        return values
    values = values.masked_fill(~valid, torch.nan)
    steps = values.shape[1]
    step = torch.arange(steps, device=values.device).view(-1, *[1] * (values.dim() - 2))  # [T, 1...]
    before = torch.where(valid, step, -1).cummax(dim=1).values  # -1: none
    past = values.gather(1, before.clamp(min=0))
    if how == "last":
        return past.masked_fill(before < 0, torch.nan)
    after = torch.where(valid, step, steps).flip(1).cummin(dim=1).values.flip(1)  # T: none
    future = values.gather(1, after.clamp(max=steps - 1))
    share = (step - before) / (after - before).clamp(min=1)  # 0 where the value is measured
    line = past + (future - past) * share
    return torch.where(before < 0, future, torch.where(after == steps, past, line))
