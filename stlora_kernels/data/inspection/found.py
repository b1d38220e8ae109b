"""Everything that is found out about one data set."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stlora_kernels.data.graph_facts import GraphFacts, graph_facts
from stlora_kernels.data.inspection.calendar import Calendar, calendar_of
from stlora_kernels.data.inspection.scan import Scan, duplicates, scan
from stlora_kernels.data.inspection.suspicion import suspicions
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY, SensorData
from stlora_kernels.data.windows import ForecastData
from stlora_kernels.errors import InputError


@dataclass(frozen=True, eq=False)
class Found:
    """Measurements as they were read, and what can be said about them.

    Args:
        name: of the set or its file. measures: quantity and unit.
        values: ``[S, N]`` float32, times: ``[S]`` datetime64[s] or None, sensor_ids: checked by nobody.
        channels: how many the file has; the first is looked at.
        null_value: the value that means "missing" in targets; None: only NaN does.
        data: the same as training loads it, or why training does not.
        problems: what could not be read, a line each.
        full: sensors and steps of the whole set, where its size is known.
        clock: ``[S]`` datetime64[s], what clocks on the wall showed, where that is not ``times``.
        adjacency: ``[N, N]``, or why there is none.
        places: ``[N, 2]`` latitude and longitude, or why there are none.
    """

    name: str
    measures: str
    values: np.ndarray
    times: np.ndarray | None
    sensor_ids: tuple[str, ...]
    channels: int
    null_value: float | None
    data: SensorData | InputError
    adjacency: np.ndarray | InputError
    places: np.ndarray | InputError
    problems: tuple[str, ...] = ()
    full: tuple[int, int] | None = None
    clock: np.ndarray | None = None

    @cached_property
    def calendar(self) -> Calendar | None:
        """Of the steps that training takes, where it does take the data."""
        step = None if isinstance(self.data, InputError) else SECONDS_PER_DAY // self.data.steps_per_day
        return None if self.times is None else calendar_of(self.times, self.clock, step)

    @cached_property
    def scan(self) -> Scan:
        return scan(self.values, self.null_value, self.calendar)

    @cached_property
    def duplicates(self) -> list[list[int]]:
        return duplicates(self.values, self.scan)

    @cached_property
    def graph(self) -> GraphFacts | None:
        return None if isinstance(self.adjacency, InputError) else graph_facts(self.adjacency)

    @property
    def steps_per_day(self) -> int:
        """288 where the times do not say."""
        return 288 if self.calendar is None else max(1, SECONDS_PER_DAY // self.calendar.step)

    @cached_property
    def reasons(self) -> dict[int, list[str]]:
        """Why a sensor is suspicious, by its index, the worst first."""
        return suspicions(self.scan, self.steps_per_day, self.times if self.clock is None else self.clock)

    @cached_property
    def training(self) -> str:
        """What training makes of it."""
        if isinstance(self.data, InputError):
            return f"refuses it: {self.data}"
        try:
            task = ForecastData(self.data, null_value=self.null_value)
        except InputError as error:
            return f"refuses it: {error}"
        parts = f"{len(task.train)} / {len(task.val)} / {len(task.test)}"
        null = "NaN" if self.null_value is None else f"{self.null_value:g} and NaN"
        if isinstance(self.adjacency, InputError):
            parts = f"needs a graph, if only --graph correlation or identity; then {parts}"
        return (
            f"{parts} windows of {task.window} + {task.horizon} steps for training / validation / test; missing in "
            f"targets: {null}; scaler: mean {task.scaler.mean:.4g}, std {task.scaler.std:.4g}"
        )


def percent(share: float) -> str:
    """In words that do not make nothing of little, nor all of nearly all."""
    if 0 < share < 1e-4:
        return "< 0.01 %"
    if 0.9999 < share < 1:
        return "> 99.99 %"
    return f"{100 * share:g} %" if share in (0, 1) else f"{100 * share:.2f} %"
