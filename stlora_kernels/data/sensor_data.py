"""One sensor network's measurements, with everything that is needed to read them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stlora_kernels.data.graph import check_adjacency, check_unique
from stlora_kernels.errors import InputError

SECONDS_PER_DAY = 86400
SLICE = 2**24  # values that are checked at a time


@dataclass(frozen=True, eq=False)
class SensorData:
    """Measurements of ``N`` sensors at ``S`` steps, their calendar and their graph.

    Args:
        name: the data set's name.
        values: ``[S, N, C]`` float32; channel 0 is the target, NaN means missing. It may be a memory map.
        times: ``[S]`` datetime64[s], increasing by one step, or by several where there is a gap.
        sensor_ids: the ``N`` sensors' ids, in the order of ``values`` and ``adjacency``.
        adjacency: ``[N, N]`` float32, ``>= 0``; entry ``[i, j]`` is the weight of the edge from i to j.
        steps_per_day: 288 for steps of 5 minutes, 96 for 15 minutes.
        quantity: what channel 0 measures ("flow", "speed").
        unit: its unit ("veh/5min", "mph", "km/h").
        split: shares of training, validation and test.
        null_value: the value that means "missing" in targets; None: only NaN does.
        synthetic: True when the values were generated, not measured.
        clock: ``[S]`` datetime64[s], what the clock on the wall showed, where ``times`` do not say that: they go on
            evenly when clocks are set forward or back. None: they do say it.
        inputs: whether the channels beyond the target are inputs by default. The published models of PEMS04 and
            PEMS08 see the target only.

    Raises:
        InputError: if shapes disagree, a value is infinite, no value is a number, time does not go on in
            whole steps, or the adjacency is not a graph of these sensors.
    """

    name: str
    values: np.ndarray
    times: np.ndarray
    sensor_ids: tuple[str, ...]
    adjacency: np.ndarray
    steps_per_day: int
    quantity: str
    unit: str
    split: tuple[float, float, float]
    null_value: float | None
    synthetic: bool = False
    clock: np.ndarray | None = None
    inputs: Literal["target", "all"] = "all"

    def __post_init__(self) -> None:
        values, times = self.values, self.times
        if values.ndim != 3 or values.dtype != np.float32:
            raise InputError(f"{self.name}: values are {values.dtype} {list(values.shape)}, expected float32 [S, N, C]")
        if 0 in values.shape:
            raise InputError(f"{self.name}: values are {list(values.shape)}, expected no empty dimension")
        if times.shape != (self.num_steps,) or times.dtype != np.dtype("datetime64[s]"):
            raise InputError(
                f"{self.name}: times are {times.dtype} {list(times.shape)}, expected datetime64[s] [{self.num_steps}]"
            )
        if self.clock is not None and (self.clock.shape, self.clock.dtype) != (times.shape, times.dtype):
            raise InputError(
                f"{self.name}: clock is {self.clock.dtype} {list(self.clock.shape)}, expected as times are"
            )
        if len(self.sensor_ids) != self.num_nodes:
            raise InputError(f"{self.name}: {len(self.sensor_ids)} sensor ids for {self.num_nodes} sensors")
        check_unique(self.sensor_ids, self.name)
        self._check_calendar()
        self._check_numbers()
        check_adjacency(self.adjacency, self.num_nodes, self.name)

    @property
    def num_steps(self) -> int:
        return self.values.shape[0]

    @property
    def num_nodes(self) -> int:
        return self.values.shape[1]

    def calendar(self) -> np.ndarray:
        """Step of the day in ``0 .. steps_per_day - 1`` and day of the week (Monday 0), ``[S, 2]`` int64."""
        seconds = (self.times if self.clock is None else self.clock).astype(np.int64)
        days, second_of_day = np.divmod(seconds, SECONDS_PER_DAY)
        step_of_day = second_of_day * self.steps_per_day // SECONDS_PER_DAY
        day_of_week = (days + 3) % 7  # day 0 of the epoch, 1970-01-01, was a Thursday
        return np.stack([step_of_day, day_of_week], axis=1)

    def _check_calendar(self) -> None:
        if self.steps_per_day < 1 or SECONDS_PER_DAY % self.steps_per_day:
            raise InputError(f"{self.name}: {self.steps_per_day} steps a day, expected a divisor of 86400")
        if np.isnat(self.times).any():
            raise InputError(f"{self.name}: step {int(np.isnat(self.times).argmax())} has no time")
        step = SECONDS_PER_DAY // self.steps_per_day
        passed = np.diff(self.times).astype(np.int64)
        wrong = (passed <= 0) | (passed % step != 0)
        if wrong.any():
            i = int(wrong.argmax()) + 1
            raise InputError(
                f"{self.name}: {self.times[i]} follows {self.times[i - 1]}, expected whole steps of {step} s later"
            )

    def _check_numbers(self) -> None:
        rows = max(SLICE // (self.num_nodes * self.values.shape[2]), 1)
        measured = False
        for first in range(0, self.num_steps, rows):  # a memory map may be larger than the memory
            values = self.values[first : first + rows]
            infinite = np.isinf(values)
            if infinite.any():
                step, node, channel = (int(i) for i in np.unravel_index(infinite.argmax(), infinite.shape))
                raise InputError(
                    f"{self.name}: infinite value at {self.times[first + step]}, sensor {self.sensor_ids[node]}, "
                    f"channel {channel}"
                )
            measured = measured or not np.isnan(values[..., 0]).all()
        if not measured:
            raise InputError(f"{self.name}: every value is missing (NaN)")
