"""Standardisation, fitted on the inputs of the training windows only."""

from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from stlora_kernels.errors import InputError

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, Tensor)

SLICE = 2**23  # values that are turned into float64 at a time


@dataclass(frozen=True)
class Scaler:
    """Standardisation ``(v - mean) / std`` with one mean and one standard deviation for all nodes.

    ``Scaler(**scaler.state_dict())`` restores it.
    """

    mean: float
    std: float

    def transform(self, values: ArrayOrTensor) -> ArrayOrTensor:
        return (values - self.mean) / self.std

    def inverse_transform(self, values: ArrayOrTensor) -> ArrayOrTensor:
        return values * self.std + self.mean

    def state_dict(self) -> dict[str, float]:
        return asdict(self)


def fit_scaler(name: str, values: np.ndarray, start: int, stop: int, window: int) -> Scaler:
    """Mean and standard deviation over the inputs of windows ``start .. stop - 1``, without building them.

    Args:
        name: what the message calls the values.
        values: ``[S, N]``, NaN where missing; perhaps a memory map, which is read in slices.

    Raises:
        InputError: if all of these inputs are missing, or all are equal.
    """
    values = values[start : stop + window - 1]  # [S', N]
    rows = max(SLICE // values.shape[1], 1)
    slices = [slice(i, i + rows) for i in range(0, len(values), rows)]
    first = np.arange(len(values))
    # Step i lies in the windows that start at i - window + 1 .. i, as far as these exist.
    weight = np.minimum(first, stop - start - 1) - np.maximum(first - window + 1, 0) + 1  # [S']
    count = weight @ np.concatenate([(~np.isnan(values[rows])).sum(axis=1) for rows in slices])
    if count == 0:
        raise InputError(f"{name}: every value of the training inputs is missing (NaN)")
    total = weight @ np.concatenate([np.nansum(values[rows], axis=1, dtype=np.float64) for rows in slices])
    mean = total / count
    square = sum(
        weight[rows] @ np.nansum(np.square(np.subtract(values[rows], mean, dtype=np.float64)), axis=1)
        for rows in slices
    )
    std = float(np.sqrt(square / count))
    if std == 0:
        raise InputError(f"{name}: every value of the training inputs is {mean}, there is nothing to learn")
    return Scaler(float(mean), std)
