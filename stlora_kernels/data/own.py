"""One's own measurements: a csv or ``.h5``, or several of them that go on one after the other."""

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from stlora_kernels.data.graph import check_unique, first_few
from stlora_kernels.data.readers import Recording, open_pandas_h5, open_series_csv
from stlora_kernels.data.readers.times import LARGEST_CHANGE, offset_text
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY, SensorData
from stlora_kernels.data.steps import SLICE, average, bins_of, even_step, snap_times
from stlora_kernels.errors import InputError, MissingFileError

SUFFIXES = (".csv", ".h5", ".hdf5")
LARGEST_GRAPH = 2**32  # bytes; a file of a few MB can name so many sensors that their dense graph fills the memory

Allocate = Callable[[tuple[int, int, int]], np.ndarray]


def is_own(name: str) -> bool:
    """Whether ``load_own`` is meant: by its suffix, which a pattern has too."""
    return name.lower().endswith(SUFFIXES)


def in_memory(shape: tuple[int, int, int]) -> np.ndarray:
    """Room for values, ``[S, N, C]`` float32."""
    return np.empty(shape, dtype=np.float32)


def own_paths(name: str) -> list[Path]:
    """The file of that name, or else the files that the pattern stands for, such as ``ca/ca_his_raw_20*.h5``.

    Raises:
        MissingFileError: if there is none.
    """
    pattern = glob.has_magic(name) and not Path(name).exists()
    paths = [Path(path) for path in sorted(glob.glob(name))] if pattern else [Path(name)]
    if not paths:
        raise MissingFileError(f"no file fits {name}; give the path of an existing one")
    for path in paths:
        if not path.is_file():
            raise MissingFileError(f"no file {path.absolute()}; give the path of an existing one")
    return paths


def load_own(
    paths: Sequence[Path],
    read_graph: Callable[[tuple[str, ...]], np.ndarray],
    *,
    resample: int | None = None,
    snap: int | None = None,
    target: str | None = None,
    null_value: float | None = None,
    allocate: Allocate = in_memory,
) -> SensorData:
    """Measurements of one's own; the step is the smallest distance between two times, so gaps may be any length.

    Args:
        paths: a ``.csv`` or ``.h5``, or several of the same sensors that are joined in the order of their times.
        read_graph: gives the adjacency of sensors by their ids, ``[N, N]`` float32.
        resample: minutes of a longer step, to which measured values are averaged; see ``bins_of`` for the nights in
            which clocks are set.
        snap: seconds by which a clock may be early or late; such times are moved.
        target: the channel to be forecast, where there are several.
        null_value: the value that means missing in the target, beside NaN; averages pass it over, and where nothing
            else was measured they are NaN.
        allocate: makes the float32 array of a shape that the values are read into.

    Raises:
        InputError: if a file is broken, files do not go together, or time does not go on in whole steps.
    """
    name = f"{paths[0]}" + (f" and {len(paths) - 1} more" if paths[1:] else "")
    with ExitStack() as stack:
        recording = _joined([stack.enter_context(_opened(path, target)) for path in paths])
        check_unique(recording.sensor_ids, name)
        times, clock = recording.times, recording.clock
        if snap is not None:
            times = snap_times(times, snap, name)
            clock = None if clock is None else clock + (times - recording.times)
        step = even_step(times, name)
        steps = np.arange(len(times) + 1)
        if resample is not None:
            steps, times, clock = bins_of(times, clock, step, resample * 60, name)
            step = resample * 60
        if 4 * len(recording.sensor_ids) ** 2 > LARGEST_GRAPH:
            raise InputError(
                f"{name} has {len(recording.sensor_ids)} sensors, expected at most 32768: graphs are dense"
            )
        graph = read_graph(recording.sensor_ids)
        values = allocate((len(times), len(recording.sensor_ids), len(recording.channels)))
        if resample is not None:
            average(recording.read, steps, values, null_value)
        else:
            _copy(recording, values)
    return SensorData(
        name=paths[0].stem,
        values=values,
        times=times,
        sensor_ids=recording.sensor_ids,
        adjacency=graph,
        steps_per_day=SECONDS_PER_DAY // step,
        quantity=recording.channels[0],
        unit="",
        split=(0.7, 0.1, 0.2),
        null_value=null_value,
        clock=clock,
    )


@contextmanager
def _opened(path: Path, target: str | None) -> Iterator[Recording]:
    if path.suffix.lower() == ".csv":
        yield open_series_csv(path, target)
    else:
        with open_pandas_h5(path, target) as recording:
            yield recording


def _joined(parts: list[Recording]) -> Recording:
    """Files that go on one after the other as one; columns are matched by the sensors' ids."""
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if not part.num_steps:
            raise InputError(f"{part.path} has no rows")
    first, *others = parts = sorted(parts, key=lambda part: part.times[:1].astype(np.int64).tolist())
    for before, part in zip(parts, others, strict=False):
        strangers = set(part.sensor_ids) ^ set(first.sensor_ids)
        if strangers or len(part.sensor_ids) != len(first.sensor_ids):
            raise InputError(
                f"{part.path} has other sensors than {first.path}: {first_few(sorted(strangers)) or 'some twice'}"
            )
        if part.channels != first.channels and len(part.channels) + len(first.channels) > 2:
            raise InputError(f"{part.path} has channels {part.channels}, {first.path} {first.channels}")
        if (part.offset is None) != (first.offset is None):
            raise InputError(f"{part.path} and {first.path}: the times of only one of them have an offset from UTC")
        if abs((part.offset or 0) - (first.offset or 0)) > LARGEST_CHANGE:
            raise InputError(
                f"{part.path} is {offset_text(part.offset)} from UTC and {first.path} {offset_text(first.offset)}, "
                "expected at most 2 hours between them; write both in local time"
            )
        if _common(part, first)[0] <= _common(before, first)[-1]:
            raise InputError(f"{part.path} starts at {part.times[:1]}, before {before.path} ends")
    times = np.concatenate([_common(part, first) for part in parts])
    clock = np.concatenate([part.times if part.clock is None else part.clock for part in parts])
    ends = np.cumsum([part.num_steps for part in parts])
    columns = [[part.sensor_ids.index(sensor) for sensor in first.sensor_ids] for part in parts]

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        for part, order, end in zip(parts, columns, ends, strict=True):
            begin = end - part.num_steps
            if start < end and stop > begin:
                pieces.append(part.read(int(max(start - begin, 0)), int(min(stop, end) - begin))[:, order])
        return np.concatenate(pieces)

    same = (clock == times).all()
    return Recording(first.path, times, None if same else clock, first.offset, first.sensor_ids, first.channels, read)


def _common(part: Recording, first: Recording) -> np.ndarray:
    """The part's times, as far ahead of UTC as those of the first one."""
    return part.times + np.timedelta64((first.offset or 0) - (part.offset or 0), "s")


def _copy(recording: Recording, values: np.ndarray) -> None:
    rows = max(SLICE // (values.shape[1] * values.shape[2]), 1)
    for start in range(0, len(values), rows):
        stop = min(start + rows, len(values))
        values[start:stop] = recording.read(start, stop)
