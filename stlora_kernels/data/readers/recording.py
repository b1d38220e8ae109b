"""What a file of measurements holds, before it is known which graph belongs to it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlora_kernels.errors import InputError


@dataclass(frozen=True, eq=False)
class Recording:
    """``S`` steps of ``N`` sensors and ``C`` channels in a file, read as far as they are asked for.

    Args:
        path: the file, for messages.
        times: ``[S]`` datetime64[s], increasing; evenly so where clocks are set forward or back, if the file tells.
        clock: ``[S]`` datetime64[s], what the clock on the wall showed, where that is not ``times``.
        offset: seconds by which ``times`` are ahead of UTC; None: the file does not tell.
        sensor_ids: of the ``N`` sensors.
        channels: names of the ``C`` channels, the target first.
        read: gives the values of the steps ``start .. stop - 1``, ``[stop - start, N, C]`` float32, NaN where missing.
    """

    path: Path
    times: np.ndarray
    clock: np.ndarray | None
    offset: int | None
    sensor_ids: tuple[str, ...]
    channels: tuple[str, ...]
    read: Callable[[int, int], np.ndarray]

    @property
    def num_steps(self) -> int:
        return len(self.times)


def target_first(channels: tuple[str, ...], target: str | None, path: Path) -> tuple[str, ...]:
    """``channels`` with ``target`` moved to the front; None leaves them as they are.

    Raises:
        InputError: if there is no channel of that name.
    """
    if target is None:
        return channels
    if target not in channels:
        raise InputError(f"{path}: target is {target!r}, expected one of its channels {', '.join(channels)}")
    return (target, *(channel for channel in channels if channel != target))
