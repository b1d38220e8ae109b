"""Measurements as a plain csv: wide, a column per sensor, or long, a row per time and sensor."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stlora_kernels.data.readers.files import check_size, csv_rows, parse_numbers, reading
from stlora_kernels.data.readers.recording import Recording, target_first
from stlora_kernels.data.readers.times import Times, parse_times, set_back_hint
from stlora_kernels.errors import InputError

Rows = Iterator[tuple[int, list[str]]]

SENSOR_COLUMN = {"sensor", "sensor_id", "node", "node_id"}  # as second column of a long csv


def read_series_csv(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Values ``[S, N, C]`` float32, times ``[S]`` datetime64[s] and the sensor ids; see ``open_series_csv``."""
    recording = open_series_csv(path)
    return recording.read(0, recording.num_steps), recording.times, recording.sensor_ids


def open_series_csv(path: Path, target: str | None = None) -> Recording:
    """The measurements in a csv whose first column is the time (see ``parse_times``), in one of two forms.

    - wide: every further column is a sensor, and its header the sensor's id;
    - long: the second column is called "sensor" (or sensor_id, node, node_id) and holds an id, and every further one is
      a channel, the first of them the target. A sensor without a row at a time is missing then.

    Empty cells and nan, na, null or none are missing values.

    Args:
        target: name of the channel to be forecast, of a long csv.

    Raises:
        InputError: if the file is not such a table, naming line and column.
    """
    with reading(path, "a csv of measurements"):
        rows = csv_rows(path)
        _, header = next(rows, (0, [""]))
        if len(header) < 2:
            raise InputError(f"{path}, line 1: one column, expected the time and one column per sensor")
        long = is_long(header[1:])
        if "" in header[1:]:
            what = "channel's name" if long else "sensor's id"
            raise InputError(f"{path}, line 1, column {header.index('', 1) + 1}: no {what}; is there a comma too many?")
        if long:
            return _long(rows, tuple(header[2:]), target, path)
        return _wide(rows, tuple(header[1:]), target, path)


def is_long(columns: Sequence[str]) -> bool:
    """Whether the columns after the time are those of a long csv."""
    return len(columns) > 1 and columns[0].lower() in SENSOR_COLUMN


def _wide(rows: Rows, ids: tuple[str, ...], target: str | None, path: Path) -> Recording:
    if target is not None:
        raise InputError(f"{path}: target is {target!r}, but each column is a sensor; a long csv has several channels")
    lines, moments, numbers = [], [], []
    for line, (moment, *cells) in rows:
        lines.append(line)
        moments.append(moment)
        numbers.append(parse_numbers(cells, list(ids), path, line))
    if not numbers:
        raise InputError(f"{path} has a header but no rows")
    times = parse_times(moments, lines, path)
    back = np.diff(times.times).astype(np.int64) < 1
    if back.any():
        row = int(back.argmax()) + 1
        raise InputError(
            f"{path}, line {lines[row]}: {moments[row]} follows {moments[row - 1]}, {set_back_hint(moments[row])}"
        )
    return _in_memory(path, times, ids, ("value",), np.stack(numbers)[:, :, None])


def _long(rows: Rows, channels: tuple[str, ...], target: str | None, path: Path) -> Recording:
    if len(set(channels)) < len(channels):
        raise InputError(f"{path}, line 1: two columns of the same name among {', '.join(channels)}")
    named = target_first(channels, target, path)
    lines, moments, sensors, numbers = [], [], [], []
    for line, (moment, sensor, *cells) in rows:
        if not sensor:
            raise InputError(f"{path}, line {line}, column 2: no sensor's id")
        lines.append(line)
        moments.append(moment)
        sensors.append(sensor)
        numbers.append(parse_numbers(cells, list(channels), path, line))
    if not numbers:
        raise InputError(f"{path} has a header but no rows")
    parsed = parse_times(moments, lines, path)
    times, first, step = np.unique(parsed.times, return_index=True, return_inverse=True)
    index = {sensor: i for i, sensor in enumerate(dict.fromkeys(sensors))}
    node = np.array([index[sensor] for sensor in sensors])
    cell = step.astype(np.int64) * len(index) + node
    order = np.argsort(cell, kind="stable")
    twice = cell[order[1:]] == cell[order[:-1]]
    if twice.any():
        row = int(order[1:][twice].min())
        raise InputError(
            f"{path}, line {lines[row]}: sensor {sensors[row]!r} has {moments[row]} a second time, "
            f"{set_back_hint(moments[row])}"
        )
    shape = (len(times), len(index), len(channels))
    check_size(shape, np.dtype(np.float32), path, path.stat().st_size)
    values = np.full(shape, np.nan, dtype=np.float32)
    values[step, node] = np.stack(numbers)[:, [channels.index(channel) for channel in named]]
    clock = None if parsed.clock is None else parsed.clock[first]
    return _in_memory(path, Times(times, clock, parsed.offset), tuple(index), named, values)


def _in_memory(
    path: Path, times: Times, ids: tuple[str, ...], channels: tuple[str, ...], values: np.ndarray
) -> Recording:
    return Recording(path, *times, ids, channels, lambda start, stop: values[start:stop])
