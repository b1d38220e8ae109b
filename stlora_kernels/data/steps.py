"""The steps of time: their length, clocks that are a little late, and longer steps from shorter ones."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stlora_kernels.data.missing import NULL_TOLERANCE
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY
from stlora_kernels.errors import InputError

SLICE = 2**24  # values that are averaged at a time
RARE = 0.1  # share of the distances; a step that fewer of them have is the mistake of a row


def smallest_step(times: np.ndarray, name: str) -> int:
    """Seconds between the two nearest times.

    Raises:
        InputError: if there are fewer than two, or one is missing (NaT) or does not come after the one before.
    """
    if len(times) < 2:
        raise InputError(f"{name} has {len(times)} step, expected at least 2")
    passed = np.diff(times).astype(np.int64)
    if passed.min() < 1:
        i = int(passed.argmin()) + 1
        raise InputError(f"{name}: {times[i]} follows {times[i - 1]}, expected times that increase")
    return int(passed.min())


def even_step(times: np.ndarray, name: str) -> int:
    """Seconds of a step, of which every distance between two times has to be a multiple, and a day too.

    Raises:
        InputError: if it is not so, or nearly no two times are that near, naming the first time that is off.
    """
    step = smallest_step(times, name)
    passed = np.diff(times).astype(np.int64)
    lengths, counts = np.unique(passed, return_counts=True)
    usual = int(lengths[counts.argmax()])
    if SECONDS_PER_DAY % usual:
        usual = _part_of_day(float(np.median(passed)))
    if not (passed % step).any():
        if SECONDS_PER_DAY % step:
            raise InputError(f"{name} has steps of {step} s, expected a part of a day")
        phase = times.astype(np.int64) % usual
        odd = phase != np.bincount(phase).argmax()
        if counts[0] < RARE * len(passed) and odd.any():
            raise InputError(
                f"{name}: {times[odd.argmax()]} is off the steps of {usual} s, as {odd.sum()} of {len(times)} times "
                f"are; only {counts[0]} come {step} s after the one before, which is no step; leave such rows out"
            )
        return step
    i = int((passed % usual != 0).argmax()) + 1
    off = int(min(passed[i - 1] % usual, -passed[i - 1] % usual))
    raise InputError(
        f"{name}: {times[i]} follows {times[i - 1]}, expected whole steps of {usual} s; "
        f"if its clock is no better, snap={off} or more evens it out"
    )


def snap_times(times: np.ndarray, tolerance: int, name: str) -> np.ndarray:
    """``times`` moved to the nearest moment of an even grid, by ``tolerance`` seconds at most.

    The grid's step is the part of a day that is nearest to the median distance between two times. It begins at
    midnight, or at the second of the step at which most times lie, where that is farther from it than ``tolerance``.

    Raises:
        InputError: if a time is farther from the grid, or two times move to the same moment, naming them.
    """
    if tolerance < 1:
        raise InputError(f"snap is {tolerance}, expected at least 1 second")
    smallest_step(times, name)
    seconds = times.astype(np.int64)
    step = _part_of_day(float(np.median(np.diff(seconds))))
    phase = int(np.bincount(seconds % step).argmax())
    if min(phase, step - phase) <= tolerance:  # a clock that is always early or late
        phase = 0
    grid = np.rint((seconds - phase) / step).astype(np.int64) * step + phase
    off = np.abs(grid - seconds)
    if (off > tolerance).any():
        i = int((off > tolerance).argmax())
        raise InputError(
            f"{name}: {times[i]} is {off[i]} s off the grid of {step} s, expected at most snap={tolerance}"
        )
    same = np.diff(grid) == 0
    if same.any():
        i = int(same.argmax())
        raise InputError(f"{name}: {times[i]} and {times[i + 1]} both snap to {grid[i].astype('datetime64[s]')}")
    return grid.astype("datetime64[s]")


def _part_of_day(seconds: float) -> int:
    """The divisor of 86400 that is nearest to ``seconds``."""
    parts = np.flatnonzero(SECONDS_PER_DAY % np.arange(1, SECONDS_PER_DAY + 1) == 0) + 1
    return int(parts[np.abs(parts - seconds).argmin()])


class Bins(NamedTuple):
    """Which steps a longer step is made of: ``first[i] .. first[i + 1] - 1``, its time, and what clocks showed."""

    first: np.ndarray  # [S' + 1]
    times: np.ndarray  # [S'] datetime64[s], at the start of each
    clock: np.ndarray | None  # [S'], None where it is times


def bins_of(times: np.ndarray, clock: np.ndarray | None, step: int, longer: int, name: str) -> Bins:
    """Steps of ``longer`` seconds, counted from midnight of the first day; those without any time are left out.

    Where clocks are set by less than a longer step, such steps are those of the clock on the wall: a day is a local
    day, be it of 23 or 25 hours. Where they are set by whole ones, an hour that they show twice is two hours.

    Args:
        times: ``[S]``, as they go on evenly.
        clock: ``[S]``, what the clock on the wall showed; None: ``times``.

    Raises:
        InputError: if longer steps are no multiple of ``step``, or no part of a day, or clocks are set back from one
            into the one before.
    """
    if longer < step or longer % step or SECONDS_PER_DAY % longer:
        raise InputError(
            f"{name}: resample is {longer / 60:g} minutes, expected a part of a day and a multiple of the data's "
            f"{step / 60:g} minutes"
        )
    begin = times[0].astype("datetime64[D]").astype("datetime64[s]")
    ahead = np.zeros_like(times, dtype="timedelta64[s]") if clock is None else clock - times
    by_wall = bool((ahead.astype(np.int64) % longer).any())
    bins = (times + ahead * by_wall - begin).astype(np.int64) // longer
    back = np.diff(bins) < 0
    if back.any():
        i = int(back.argmax()) + 1
        raise InputError(
            f"{name}: {(times + ahead)[i]} comes again where clocks are set back, into the step before of resample="
            f"{longer // 60}, expected a length of steps that does not end there"
        )
    first = np.flatnonzero(np.diff(bins, prepend=-1))
    binned = begin + bins[first] * np.timedelta64(longer, "s")
    return Bins(np.append(first, len(times)), binned, None if clock is None or by_wall else binned + ahead[first])


def average(
    read: Callable[[int, int], np.ndarray], first: np.ndarray, out: np.ndarray, null_value: float | None
) -> None:
    """Means over bins of the values that were measured; a bin without any is NaN.

    Args:
        read: gives the steps ``start .. stop - 1``, ``[stop - start, N, C]``, NaN where missing.
        first: ``[S' + 1]``, as in :class:`Bins`.
        out: ``[S', N, C]`` float32, filled slice by slice.
        null_value: what means missing in channel 0, the target, beside NaN; None: nothing does.
    """
    per_bin = max(int(np.diff(first).max()), 1)
    bins = max(SLICE // (per_bin * out.shape[1] * out.shape[2]), 1)
    for i in range(0, len(out), bins):
        inside = first[i : i + bins + 1]
        values = read(int(inside[0]), int(inside[-1]))
        starts = inside[:-1] - inside[0]
        missing = np.isnan(values)
        if null_value is not None:
            missing[..., 0] |= np.abs(values[..., 0] - np.float32(null_value)) < NULL_TOLERANCE
        counts = np.add.reduceat(~missing, starts, axis=0, dtype=np.int64)
        sums = np.add.reduceat(np.where(missing, 0, values), starts, axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # 0 / 0 is NaN, as it has to be
            out[i : i + bins] = sums / counts
