"""One pass over the measurements that counts everything the report and the picture need, a slice at a time."""

from dataclasses import dataclass

import numpy as np

from stlora_kernels.data.inspection.calendar import Calendar
from stlora_kernels.data.missing import is_measured
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY

SLICE = 2**17  # values looked at at once
COLUMNS = 240  # of the map of missing values
SLOTS = 96  # of the day, at most
SAMPLE = 2000  # steps that stand for all where a sensor's usual values are asked for


class Runs:
    """The longest run of steps, per sensor, over which something holds."""

    def __init__(self, nodes: int) -> None:
        self.before = np.full(nodes, -1)  # the last step at which it did not hold
        self.length = np.zeros(nodes, dtype=np.int64)
        self.start = np.zeros(nodes, dtype=np.int64)

    def add(self, first: int, holds: np.ndarray) -> None:
        """The next steps, from ``first`` on: bool ``[s, N]``."""
        for step, row in enumerate(holds, first):
            self.before[~row] = step
            length = step - self.before
            longer = length > self.length
            self.start[longer] = self.before[longer] + 1
            self.length[longer] = length[longer]


@dataclass(frozen=True, eq=False)
class Scan:
    """Per sensor, ``[N]`` each: counts, the range and mean of what was measured, and the longest runs.

    outage: steps without a measurement. stuck: steps at which the value is the same as one step before. usual: the
    value that 99 % of the measurements stay below. profile: mean at each time of the day on working days and at
    weekends, ``[2, slots, N]``, NaN where there is none; None without a calendar. missing: share of the steps without a
    measurement in each slice of time, ``[columns, N]``, NaN in a gap.
    """

    steps: int
    nan: np.ndarray
    infinite: np.ndarray
    zero: np.ndarray
    negative: np.ndarray
    measured: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    usual: np.ndarray
    outage: Runs
    stuck: Runs
    profile: np.ndarray | None
    missing: np.ndarray


def scan(values: np.ndarray, null_value: float | None, calendar: Calendar | None) -> Scan:
    """Look at ``[S, N]`` float32 once."""
    steps, nodes = values.shape
    counts = {name: np.zeros(nodes, dtype=np.int64) for name in ("nan", "infinite", "zero", "negative", "measured")}
    sums, squares = np.zeros(nodes), np.zeros(nodes)
    lowest, highest = np.full(nodes, np.inf), np.full(nodes, -np.inf)
    outage, stuck = Runs(nodes), Runs(nodes)
    slot, slots = _slots(steps, calendar)
    profile, profile_count = np.zeros((2 * slots + 1, nodes)), np.zeros((2 * slots + 1, nodes), dtype=np.int32)
    column = _columns(steps, calendar)
    missing = np.zeros((column[-1] + 1, nodes), dtype=np.int32)
    last = np.full((1, nodes), np.nan, dtype=np.float32)
    rows = max(1, SLICE // nodes)
    for start in range(0, steps, rows):
        part = values[start : start + rows]  # [s, N]
        there = is_measured(part, null_value)
        clean = np.where(there, part, 0)
        counts["nan"] += np.isnan(part).sum(axis=0)
        counts["infinite"] += np.isinf(part).sum(axis=0)
        counts["zero"] += (part == 0).sum(axis=0)
        counts["negative"] += (clean < 0).sum(axis=0)
        counts["measured"] += there.sum(axis=0)
        sums += clean.sum(axis=0, dtype=np.float64)
        squares += np.square(clean, dtype=np.float64).sum(axis=0)
        lowest = np.minimum(lowest, np.where(there, part, np.inf).min(axis=0))
        highest = np.maximum(highest, np.where(there, part, -np.inf).max(axis=0))
        outage.add(start, ~there)
        stuck.add(start, there & (part == np.concatenate([last, part[:-1]])))
        last = part[-1:]
        for step, row in enumerate(there, start):  # faster than np.add.at
            missing[column[step]] += ~row
            profile[slot[step]] += clean[step - start]
            profile_count[slot[step]] += row
    with np.errstate(invalid="ignore", divide="ignore"):  # a sensor without measurements has no mean: NaN
        mean = sums / counts["measured"]
        variance = squares / counts["measured"] - mean**2
        profile /= profile_count
        shares = (missing / np.bincount(column, minlength=len(missing))[:, None]).astype(np.float32)
    return Scan(
        steps=steps,
        **counts,
        lowest=lowest,
        highest=highest,
        mean=mean,
        std=np.sqrt(np.maximum(variance, 0)),
        usual=_usual(values, null_value),
        outage=outage,
        stuck=stuck,
        profile=None if calendar is None else profile[:-1].reshape(2, slots, nodes),
        missing=shares,
    )


def duplicates(values: np.ndarray, found: Scan) -> list[list[int]]:
    """Groups of sensors with the very same series, of which at least one measurement is not like the others."""
    groups: dict[tuple[float, ...], list[list[int]]] = {}
    for i in np.flatnonzero((found.measured > 0) & (found.lowest < found.highest)).tolist():
        key = (found.mean[i], found.std[i], found.lowest[i], found.highest[i], int(found.measured[i]))
        alike = groups.setdefault(key, [])
        for group in alike:
            if np.array_equal(values[:, group[0]], values[:, i], equal_nan=True):
                group.append(i)
                break
        else:
            alike.append([i])
    return [group for alike in groups.values() for group in alike if len(group) > 1]


def _slots(steps: int, calendar: Calendar | None) -> tuple[np.ndarray, int]:
    """Slots in a day, and the slot, at weekends as many more, of every step, -1 where its time is unreadable."""
    if calendar is None:
        return np.full(steps, -1), 0
    slots = max(1, min(SLOTS, SECONDS_PER_DAY // calendar.step))
    days, second = np.divmod(calendar.clock.astype(np.int64), SECONDS_PER_DAY)
    weekend = (days + 3) % 7 >= 5  # day 0 of the epoch, 1970-01-01, was a Thursday
    return np.where(np.isnat(calendar.clock), -1, second * slots // SECONDS_PER_DAY + slots * weekend), slots


def _columns(steps: int, calendar: Calendar | None) -> np.ndarray:
    """The slice of time of every step; by the calendar, so that gaps show, where it goes on in order."""
    if calendar is None or not calendar.sound:
        return np.arange(steps) * min(COLUMNS, steps) // steps
    passed = (calendar.times - calendar.times[0]).astype(np.int64) // calendar.step
    return passed * min(COLUMNS, steps) // (passed[-1] + 1)


def _usual(values: np.ndarray, null_value: float | None) -> np.ndarray:
    """The 99th percentile of the measurements of some steps, ``[N]``; NaN where there is none."""
    steps = len(values)
    chosen = np.sort(np.random.default_rng(0).choice(steps, min(SAMPLE, steps), replace=False))
    sample = values[chosen]
    there = is_measured(sample, null_value)
    sample = np.sort(np.where(there, sample, np.nan), axis=0)  # NaN comes last
    position = np.maximum(np.ceil(0.99 * there.sum(axis=0)).astype(np.int64) - 1, 0)
    return np.take_along_axis(sample, position[None], axis=0)[0]
