"""From one series to batches: windows are cut out of a single array when they are asked for, never stored."""

import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from stlora_kernels.data.missing import Fill, fill_missing, valid_mask
from stlora_kernels.data.scaler import Scaler, fit_scaler
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY, SensorData
from stlora_kernels.errors import InputError

logger = logging.getLogger(__name__)

# How much of a GPU's free memory the whole series may take; the model and its gradients need the rest.
DEVICE_SHARE = 0.25


class Batch(NamedTuple):
    """``B`` windows of ``T`` input steps and ``H`` target steps.

    x: ``[B, T, N, F]`` float32: scaled value (0 where missing), time of day in [0, 1), day of the week / 7, and then
        the data's further channels, if they are inputs, each scaled by itself.
    y: ``[B, H, N, 1]`` float32 in the data's unit, NaN where missing.
    time: ``[B, T, 2]`` int64: step of the day, day of the week (Monday 0), as indices for embeddings.
    """

    x: Tensor
    y: Tensor
    time: Tensor


@dataclass(frozen=True, eq=False)
class Series:
    """What every part of a data set cuts its windows from."""

    values: Tensor  # [S, N, C] float32 in real units, the target first; a view of the data, perhaps of a memory map
    calendar: Tensor  # [S, 2] int64, step of the day and day of the week
    steps_per_day: int
    scalers: tuple[Scaler, ...]  # C
    window: int
    horizon: int
    null_value: float | None
    fill: Fill = "none"
    pinned: bool = False  # batches lie in page-locked memory, from which a GPU copies by itself


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
        device = series.values.device
        steps = (self.start + indices).unsqueeze(1) + torch.arange(past + series.horizon)  # [B, T+H]
        steps = steps.to(device, non_blocking=True)
        values = series.values.index_select(0, steps.flatten()).unflatten(0, steps.shape)  # [B, T+H, N, C]
        time = series.calendar[steps[:, :past]]  # [B, T, 2]
        num_nodes, channels = values.shape[2:]
        x = self._empty(len(steps), past, num_nodes, 2 + channels)
        for channel, scaler in enumerate(series.scalers):
            given = values[:, :past, :, channel]  # [B, T, N]
            if series.fill != "none":
                null_value = None if channel else series.null_value
                given = fill_missing(given, valid_mask(given, null_value), series.fill)
            x[..., channel + 2 if channel else 0] = scaler.transform(given).nan_to_num(nan=0.0)
        x[..., 1] = (time[..., 0] / series.steps_per_day).unsqueeze(2)
        x[..., 2] = (time[..., 1] / 7).unsqueeze(2)
        y = self._empty(len(steps), series.horizon, num_nodes, 1)
        return Batch(x, y.copy_(values[:, past:, :, :1]), time)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.series.values.device, pin_memory=self.series.pinned)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        first: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """All windows once, in order of time or shuffled by ``generator``; the last batch may be smaller.

        Args:
            first: leave out so many batches at the beginning: those that were done before a training went on.
            share: ``(i, k)``: of each batch the i-th of k parts. Where a batch has fewer windows than that, the parts
                left over are its first window without targets (NaN), since few models take an empty batch.
        """
        self.num_batches(batch_size)
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        batches = (self._part(indices, *share) for indices in order.split(batch_size)[first:])
        return _one_ahead(batches) if self.series.pinned else batches

    def _part(self, indices: Tensor, rank: int, ranks: int) -> Batch:
        mine = indices.tensor_split(ranks)[rank]
        if len(mine):
            return self.gather(mine)
        batch = self.gather(indices[:1])
        return batch._replace(y=torch.full_like(batch.y, torch.nan))

    def num_batches(self, batch_size: int) -> int:
        """How many batches ``batches(batch_size)`` yields.

        Raises:
            InputError: if ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, expected at least 1")
        return -(-len(self) // batch_size)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made by a second thread while the one before it is at work on the GPU."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


class ForecastData:
    """A data set as a forecasting task: its windows in three contiguous parts, and its scaler.

    ``S`` steps hold ``S - window - horizon + 1`` windows. The shares of ``split`` are shares of these windows, the
    field's usual convention, in which neighbouring parts share steps at their border; with ``split_by="steps"`` they
    are shares of the steps, and every window lies wholly inside its part. Training and validation get
    ``round(share * total)``, test gets the rest.

    Windows that cross a gap in time are kept, because the published window counts have them (PEMS-BAY's hour of
    daylight saving); a warning says how many there are. Rows of NaN for the missing steps close a gap.

    The scaler is fitted on the inputs of the training windows only, zeros included and NaN left out, as the
    published scalers are: every step counts as often as it occurs in training windows. Filling does not change it.

    The values are never copied: they may be a memory map larger than the memory (``commands.convert`` writes one).

    Args:
        data: the measurements.
        window: number of input steps ``T``.
        horizon: number of target steps ``H``.
        split: shares of training, validation and test, in any scale; None: the data set's own.
        split_by: what the shares refer to.
        null_value: the target value that means "missing"; None: only NaN does; "data": as the data set says.
        fill: how missing inputs (NaN, and ``null_value`` in the target channel) are filled from their own window, see
            ``fill_missing``; "none": a NaN becomes the training mean and the null value stays. Targets stay missing.
        inputs: which channels are inputs: "target", or "all"; "data": as the data set says.

    Raises:
        InputError: if a size or share is not positive, a part would have no window, or the training inputs
            are all missing or all equal.
    """

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
        fill: Fill = "none",
        inputs: Literal["data", "target", "all"] = "data",
    ) -> None:
        if fill not in get_args(Fill):
            raise InputError(f"fill is {fill!r}, expected one of {', '.join(get_args(Fill))}")
        if inputs not in ("data", "target", "all"):
            raise InputError(f"inputs is {inputs!r}, expected 'data', 'target' or 'all'")
        if window < 1 or horizon < 1:
            raise InputError(f"window is {window}, horizon is {horizon}, expected at least 1 each")
        self.data = data
        self.window = window
        self.horizon = horizon
        self.null_value = data.null_value if null_value == "data" else null_value
        self.num_nodes = data.num_nodes
        parts = _split_windows(data, window, horizon, split or data.split, split_by)
        used = data.values if (data.inputs if inputs == "data" else inputs) == "all" else data.values[..., :1]
        scalers = tuple(
            fit_scaler(f"{data.name}, channel {c}" if c else data.name, used[..., c], *parts[0], window)
            for c in range(used.shape[2])
        )
        self.scaler = scalers[0]
        self.in_features = 2 + len(scalers)
        series = Series(
            _as_tensor(used),
            torch.from_numpy(data.calendar()),
            data.steps_per_day,
            scalers,
            window,
            horizon,
            self.null_value,
            fill,
        )
        self.train, self.val, self.test = (Windows(series, start, stop) for start, stop in parts)
        _warn_of_gaps(data, window + horizon, parts)

    def place(self, device: torch.device) -> None:
        """Make batches for ``device``; nothing changes on the CPU.

        Where the series takes at most a quarter of a GPU's free memory it is moved there whole, and batches are cut
        out of it there. Where it does not, batches are made here in page-locked memory, one ahead of the one in use.
        """
        if device.type != "cuda":
            return
        series = self.train.series
        needed, free = series.values.nbytes, torch.cuda.mem_get_info(device)[0]
        if needed <= DEVICE_SHARE * free:
            values = series.values.to(device, memory_format=torch.contiguous_format)
            series = replace(series, values=values, calendar=series.calendar.to(device))
        else:
            series = replace(series, pinned=True)
        for part in (self.train, self.val, self.test):
            part.series = series


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


def _as_tensor(values: np.ndarray) -> Tensor:
    """The very memory of ``values``, which nobody writes to (torch warns of memory maps that are read only)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)
