"""METR-LA, PEMS-BAY and LargeST as the field circulates them: pandas frames in ``.h5`` files.

The file is opened with h5py, not with ``pandas.read_hdf``: that unpickles attributes of the file, and a pickle can
run code.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stlora_kernels.data.graph import first_few
from stlora_kernels.data.readers.files import check_size, reading
from stlora_kernels.data.readers.recording import Recording, target_first
from stlora_kernels.errors import InputError, require

WHAT = "a pandas .h5 file"

Read = Callable[[int, int], np.ndarray]


def read_pandas_h5(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Values ``[S, N, 1]`` float32, times ``[S]`` datetime64[s] and sensor ids of the one frame in the file.

    Raises:
        InputError: see ``open_pandas_h5``.
    """
    with open_pandas_h5(path) as recording:
        return recording.read(0, recording.num_steps), recording.times, recording.sensor_ids


@contextmanager
def open_pandas_h5(path: Path, target: str | None = None) -> Iterator[Recording]:
    """The frames in a file, each a channel; with one frame, which is the rule, its key is of no importance.

    Frames are what ``DataFrame.to_hdf`` writes in its default, fixed format: dates as rows, sensors as columns. Values
    are read from the file when they are asked for, until the block ends.

    Args:
        target: key of the frame to be forecast, where there are several.

    Raises:
        InputError: if the file is broken or holds anything else, or several frames that differ in rows or columns.
    """
    h5py = require("h5py", "train")
    with reading(path, WHAT):
        file = h5py.File(path, "r")
    with file:
        with reading(path, WHAT):
            recording = _recording(file, target, path)
        yield recording


def _recording(file: Any, target: str | None, path: Path) -> Recording:
    groups = {key: item for key in file if _is_group(item := _inside(file, key))}
    frames = {key: group for key, group in groups.items() if "axis0" in group and "block0_values" in group}
    if not frames or (len(frames) > 1 and target is None):
        several = f", or as target the one to be forecast of {', '.join(frames)}" if frames else ""
        raise InputError(f"{path} holds {len(frames)} pandas frames in fixed format, expected one{several}")
    channels = target_first(tuple(frames), target, path)
    times, ids = _times(_data(frames[channels[0]], "axis1", path), path), None
    reads = []
    for channel in channels:
        frame = frames[channel]
        own_ids = _labels(_data(frame, "axis0", path), path)
        if ids is not None and (own_ids != ids or not np.array_equal(_times(_data(frame, "axis1", path), path), times)):
            raise InputError(f"{path}: frame {channel} has other rows or columns than {channels[0]}")
        ids = own_ids
        reads.append(_values(frame, len(times), own_ids, path))
    assert ids is not None  # there is at least one channel

    def read(start: int, stop: int) -> np.ndarray:
        with reading(path, WHAT):
            return np.concatenate([one(start, stop) for one in reads], axis=2)

    return Recording(path, times, None, None, ids, channels, read)


def _inside(group: Any, name: str) -> Any:
    """A member of a group that lies in this very file, or None: links may lead to any file of the machine."""
    from h5py import HardLink

    return group[name] if isinstance(group.get(name, getlink=True), HardLink) else None


def _is_group(item: Any) -> bool:
    from h5py import Group

    return isinstance(item, Group)


def _data(frame: Any, name: str, path: Path) -> Any:
    """An array of the frame, of a size that its file can hold."""
    from h5py import Dataset

    array = _inside(frame, name)
    if not isinstance(array, Dataset) or array.shape is None or array.is_virtual or array.external:
        raise InputError(f"{path}: {frame.name}/{name} is no array that lies in this file")
    check_size(array.shape, array.dtype, path, path.stat().st_size)
    return array


def _times(index: Any, path: Path) -> np.ndarray:
    """pandas stores dates as integers and their unit in the attribute ``kind`` (nanoseconds if it names none)."""
    kind = _text(index.attrs.get("kind", ""))
    unit = re.fullmatch(r"datetime64(?:\[(s|ms|us|ns)\])?", kind)
    if not unit or "tz" in index.attrs:
        raise InputError(f"{path}: the rows are of kind {kind!r}, expected dates without a time zone")
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise InputError(f"{path}: the rows are {index.dtype} {list(index.shape)}, expected one integer per date")
    exact = index[:].astype(np.int64).astype(f"datetime64[{unit[1] or 'ns'}]")
    times = exact.astype("datetime64[s]")
    if (times != exact).any():
        raise InputError(f"{path}: {exact[(times != exact).argmax()]} is between two seconds, expected whole ones")
    return times


def _labels(labels: Any, path: Path) -> tuple[str, ...]:
    if labels.ndim != 1 or labels.dtype.kind not in "iuS":
        raise InputError(
            f"{path}: the sensor ids are of type {labels.dtype}, expected numbers or plain text (no pickled objects)"
        )
    return tuple(_text(label) for label in labels[:])


def _values(frame: Any, steps: int, ids: tuple[str, ...], path: Path) -> Read:
    """A reader of ``[stop - start, N, 1]``; pandas keeps the columns of each number type in a block of their own."""
    column = {sensor: i for i, sensor in enumerate(ids)}
    blocks: list[tuple[list[int], Any]] = []
    while f"block{len(blocks)}_values" in frame:
        sensors = _labels(_data(frame, f"block{len(blocks)}_items", path), path)
        numbers = _data(frame, f"block{len(blocks)}_values", path)
        if numbers.shape != (steps, len(sensors)) or numbers.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: values are {numbers.dtype} {list(numbers.shape)}, expected numbers {[steps, len(sensors)]}"
            )
        if not set(sensors) <= set(ids):
            raise InputError(
                f"{path}: block{len(blocks)} holds values of {first_few(sensors)}, of which not all are columns"
            )
        blocks.append(([column[sensor] for sensor in sensors], numbers))

    def read(start: int, stop: int) -> np.ndarray:
        values = np.full((stop - start, len(ids), 1), np.nan, dtype=np.float32)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which SensorData reports
            for columns, numbers in blocks:
                values[:, columns, 0] = numbers[start:stop]
        return values

    return read


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
