"""The steps of time: how long they are, and where they do not follow one another."""

from dataclasses import dataclass

import numpy as np

from stlora_kernels.data.sensor_data import SECONDS_PER_DAY


@dataclass(frozen=True, eq=False)
class Calendar:
    """Facts about ``S`` times.

    clock: what clocks on the wall showed, which is what people call these times. step: seconds. gaps:
    ``(index, missing steps)`` of each step after a gap, the longest first. repeated, backward: steps at the time of
    the one before, or at an earlier one. uneven: steps that come no whole number of steps later. unreadable: NaT.
    """

    times: np.ndarray
    clock: np.ndarray
    step: int
    gaps: tuple[tuple[int, int], ...]
    repeated: int
    backward: int
    uneven: int
    unreadable: int

    @property
    def sound(self) -> bool:
        """Whether time goes on in whole steps, which are a part of a day; gaps do not matter."""
        return not (self.repeated or self.backward or self.uneven or self.unreadable or SECONDS_PER_DAY % self.step)

    def lines(self) -> list[str]:
        """All of it in words."""
        readable = self.clock[~np.isnat(self.clock)]
        first, last = (str(time).replace("T", " ") for time in readable[[0, -1]])
        rhythm = "" if SECONDS_PER_DAY % self.step == 0 else ", which is no part of a day"
        lines = [f"{first} to {last}, {len(self.times)} steps of {_minutes(self.step)}{rhythm}"]
        if self.gaps:
            missing = sum(steps for _, steps in self.gaps)
            where = "; ".join(f"{steps} before {self.clock[i]}".replace("T", " ") for i, steps in self.gaps[:3])
            lines.append(f"gaps: {len(self.gaps)}, steps missing: {missing}, {where}{'; ...' if self.gaps[3:] else ''}")
        else:
            lines.append("no gaps")
        for count, what in (
            (self.repeated, "steps with the time of the one before"),
            (self.backward, "steps that go back in time"),
            (self.uneven, "steps that come at no whole number of steps"),
            (self.unreadable, "times that cannot be read"),
        ):
            if count:
                lines.append(f"{what}: {count}")
        return lines


def calendar_of(times: np.ndarray, clock: np.ndarray | None = None, step: int | None = None) -> Calendar | None:
    """The facts about ``[S]`` datetime64[s]; None if no two times follow one another.

    Args:
        clock: ``[S]``, what clocks on the wall showed; None: ``times``.
        step: seconds of a step; None: the commonest distance between two times.
    """
    passed = np.diff(times).astype(np.int64)
    known = ~(np.isnat(times[1:]) | np.isnat(times[:-1]))
    ahead = known & (passed > 0)
    if not ahead.any():
        return None
    lengths, counts = np.unique(passed[ahead], return_counts=True)
    step = step or int(lengths[counts.argmax()])
    missing = np.where(ahead, passed // step - 1, 0)
    order = np.argsort(-missing, kind="stable")[: np.count_nonzero(missing > 0)]
    return Calendar(
        times=times,
        clock=times if clock is None else clock,
        step=step,
        gaps=tuple((int(i) + 1, int(missing[i])) for i in order),
        repeated=int((known & (passed == 0)).sum()),
        backward=int((known & (passed < 0)).sum()),
        uneven=int((ahead & (passed % step != 0)).sum()),
        unreadable=int(np.isnat(times).sum()),
    )


def _minutes(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"
