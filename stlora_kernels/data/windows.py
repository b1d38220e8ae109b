"""From one series to batches: windows are cut out of a single array when they are asked for, never stored."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from stlora_kernels.data.sensor_data import SECONDS_PER_DAY, SensorData
from stlora_kernels.errors import InputError

logger = logging.getLogger(__name__)

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, Tensor)


class Batch(NamedTuple):
    """``B`` windows of ``T`` input steps and ``H`` target steps.

    x: ``[B, T, N, 3]`` float32: scaled value (0 where missing), time of day in [0, 1), day of the week / 7.
    y: ``[B, H, N, 1]`` float32 in the data's unit, NaN where missing.
    time: ``[B, T, 2]`` int64: step of the day, day of the week (Monday 0), as indices for embeddings.
    """

    x: Tensor
    y: Tensor
    time: Tensor


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


@dataclass(frozen=True, eq=False)
class Series:
    """What every part of a data set cuts its windows from."""

    values: Tensor  # [S, N] float32, the target channel in real units
    calendar: Tensor  # [S, 2] int64, step of the day and day of the week
    steps_per_day: int
    scaler: Scaler
    window: int
    horizon: int


class Windows:
    """The windows ``start .. stop - 1`` of a series; window ``i`` reads ``x[i .. i+T-1]``, ``y[i+T .. i+T+H-1]``."""

    def __init__(self, series: Series, start: int, stop: int) -> None:
        self.series = series
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def gather(self, indices: Tensor) -> Batch:
        """The windows at ``indices``: int64 ``[B]`` in ``0 .. len(self) - 1``, any order, repeats allowed.

        Raises:
            IndexError: if an index lies outside this part (and so, perhaps, inside another one).
        """
        if indices.numel() and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"window indices {int(indices.min())} .. {int(indices.max())}, expected 0 .. {len(self) - 1}"
            )
        series, past = self.series, self.series.window
        steps = (self.start + indices).unsqueeze(1) + torch.arange(past + series.horizon)  # [B, T+H]
        values = series.values.index_select(0, steps.flatten()).unflatten(0, steps.shape)  # [B, T+H, N]
        time = series.calendar[steps[:, :past]]  # [B, T, 2]
        x = values.new_empty(*values[:, :past].shape, 3)  # [B, T, N, 3]
        x[..., 0] = series.scaler.transform(values[:, :past]).nan_to_num(nan=0.0)
        x[..., 1] = (time[..., 0] / series.steps_per_day).unsqueeze(2)
        x[..., 2] = (time[..., 1] / 7).unsqueeze(2)
        return Batch(x, values[:, past:].unsqueeze(3).contiguous(), time)

    def batches(
        self, batch_size: int, *, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """All windows once, in order of time or shuffled by ``generator``; the last batch may be smaller."""
        self.num_batches(batch_size)
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        return (self.gather(indices) for indices in order.split(batch_size))

    def num_batches(self, batch_size: int) -> int:
        """How many batches ``batches(batch_size)`` yields.

        Raises:
            InputError: if ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, expected at least 1")
        return -(-len(self) // batch_size)


class ForecastData:
    """A data set as a forecasting task: its windows in three contiguous parts, and its scaler.

    ``S`` steps hold ``S - window - horizon + 1`` windows. The shares of ``split`` are shares of these windows, the
    field's usual convention, in which neighbouring parts share steps at their border; with ``split_by="steps"`` they
    are shares of the steps, and every window lies wholly inside its part. Training and validation get
    ``round(share * total)``, test gets the rest.

    Windows that cross a gap in time are kept, because the published window counts have them (PEMS-BAY's hour of
    daylight saving); a warning says how many there are. Rows of NaN for the missing steps close a gap.

    The scaler is fitted on the inputs of the training windows only, zeros included and NaN left out, as the
    published scalers are: every step counts as often as it occurs in training windows.

    Args:
        data: the measurements.
        window: number of input steps ``T``.
        horizon: number of target steps ``H``.
        split: shares of training, validation and test, in any scale; None: the data set's own.
        split_by: what the shares refer to.
        null_value: the target value that means "missing"; None: only NaN does; "data": as the data set says.

    Raises:
        InputError: if a size or share is not positive, a part would have no window, or the training inputs
            are all missing or all equal.
    """

    in_features = 3
    out_features = 1

    def __init__(
        self,
        data: SensorData,
        *,
        window: int = 12,
        horizon: int = 12,
        split: tuple[float, float, float] | None = None,
        split_by: Literal["windows", "steps"] = "windows",
        null_value: float | Literal["data"] | None = "data",
    ) -> None:
        if window < 1 or horizon < 1:
            raise InputError(f"window is {window}, horizon is {horizon}, expected at least 1 each")
        self.data = data
        self.window = window
        self.horizon = horizon
        self.null_value = data.null_value if null_value == "data" else null_value
        self.num_nodes = data.num_nodes
        parts = _split_windows(data, window, horizon, split or data.split, split_by)
        values = np.require(data.values[:, :, 0], requirements=["C", "W"])  # [S, N]
        self.scaler = _fit_scaler(data.name, values, *parts[0], window)
        series = Series(
            torch.from_numpy(values),
            torch.from_numpy(data.calendar()),
            data.steps_per_day,
            self.scaler,
            window,
            horizon,
        )
        self.train, self.val, self.test = (Windows(series, start, stop) for start, stop in parts)
        _warn_of_gaps(data, window + horizon, parts)


def _split_windows(
    data: SensorData, window: int, horizon: int, split: tuple[float, float, float], split_by: str
) -> list[tuple[int, int]]:
    """First window and end of training, validation and test."""
    if len(split) != 3 or not all(np.isfinite(share) and share > 0 for share in split):
        raise InputError(f"split is {split}, expected three positive shares, such as 0.7, 0.1, 0.2")
    if split_by not in ("windows", "steps"):
        raise InputError(f"split_by is {split_by!r}, expected 'windows' or 'steps'")
    surplus = window + horizon - 1  # steps in which no further window starts
    total = data.num_steps - (surplus if split_by == "windows" else 0)
    train, val = (round(total * share / sum(split)) for share in split[:2])
    sizes = [train, val, total - train - val]
    starts = [0, train, train + val]
    if split_by == "steps":
        sizes = [size - surplus for size in sizes]
    if min(sizes) < 1:
        raise InputError(
            f"{data.name}: {data.num_steps} steps are too few for a window of {window} + {horizon} steps in each of "
            f"training, validation and test (split {split} by {split_by})"
        )
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _warn_of_gaps(data: SensorData, length: int, parts: list[tuple[int, int]]) -> None:
    """Say how many windows of ``length`` steps take the steps before and after a gap for neighbours."""
    step = SECONDS_PER_DAY // data.steps_per_day
    gap = np.diff(data.times).astype(np.int64) > step  # [S-1]
    if not gap.any():
        return
    gaps_before = np.concatenate([[0], np.cumsum(gap)])  # [S]
    crossing = gaps_before[length - 1 :] > gaps_before[: len(gaps_before) - length + 1]  # [S - length + 1]
    count = sum(int(crossing[start:stop].sum()) for start, stop in parts)
    if count:
        logger.warning(
            "%s: %d of %d windows cross %d gap(s) in time and are kept; rows of NaN for the missing steps close a gap",
            *(data.name, count, sum(stop - start for start, stop in parts), gap.sum()),
        )


def _fit_scaler(name: str, values: np.ndarray, start: int, stop: int, window: int) -> Scaler:
    """Mean and standard deviation over the inputs of windows ``start .. stop - 1``, without building them."""
    values = values[start : stop + window - 1]  # [S', N]
    first = np.arange(len(values))
    # Step i lies in the windows that start at i - window + 1 .. i, as far as these exist.
    weight = np.minimum(first, stop - start - 1) - np.maximum(first - window + 1, 0) + 1  # [S']
    count = weight @ (~np.isnan(values)).sum(axis=1)
    if count == 0:
        raise InputError(f"{name}: every value of the training inputs is missing (NaN)")
    mean = weight @ np.nansum(values, axis=1, dtype=np.float64) / count
    square = sum(  # in slices, so that no float64 copy of the whole series is made
        weight[rows] @ np.nansum(np.square(np.subtract(values[rows], mean, dtype=np.float64)), axis=1)
        for rows in (slice(i, i + 1024) for i in range(0, len(values), 1024))
    )
    std = float(np.sqrt(square / count))
    if std == 0:
        raise InputError(f"{name}: every value of the training inputs is {mean}, there is nothing to learn")
    return Scaler(float(mean), std)
