"""METR-LA and PEMS-BAY as the field circulates them: a pandas frame in an ``.h5`` file.

The file is opened with h5py, not with ``pandas.read_hdf``: that unpickles attributes of the file, and a pickle can
run code.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from stlora_kernels.data.readers.files import reading
from stlora_kernels.errors import InputError, require


def read_pandas_h5(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Values ``[S, N, 1]`` float32, times ``[S]`` datetime64[s] and sensor ids of the one frame in the file.

    The frame is one that ``DataFrame.to_hdf`` wrote in its default, fixed format: dates as rows, sensors as columns.

    Raises:
        InputError: if the file is broken or holds anything else.
    """
    h5py = require("h5py", "train")
    with reading(path, "a pandas .h5 file"), h5py.File(path, "r") as file:
        groups = [item for item in file.values() if isinstance(item, h5py.Group)]
        frames = [group for group in groups if "axis0" in group and "block0_values" in group]
        if len(frames) != 1:
            raise InputError(f"{path} holds {len(frames)} pandas frames in fixed format, expected one")
        frame = frames[0]
        times = _times(frame["axis1"], path)
        ids = _labels(frame["axis0"], path)
        return _values(frame, len(times), ids, path), times, ids


def _times(index: Any, path: Path) -> np.ndarray:
    """pandas stores dates as integers and their unit in the attribute ``kind`` (nanoseconds if it names none)."""
    kind = _text(index.attrs.get("kind", ""))
    unit = re.fullmatch(r"datetime64(?:\[(s|ms|us|ns)\])?", kind)
    if not unit or "tz" in index.attrs:
        raise InputError(f"{path}: the rows are of kind {kind!r}, expected dates without a time zone")
    return index[:].astype(f"datetime64[{unit[1] or 'ns'}]").astype("datetime64[s]")


def _labels(labels: Any, path: Path) -> tuple[str, ...]:
    if labels.dtype.kind not in "iuS":
        raise InputError(
            f"{path}: the sensor ids are of type {labels.dtype}, expected numbers or plain text (no pickled objects)"
        )
    return tuple(_text(label) for label in labels[:])


def _values(frame: Any, steps: int, ids: tuple[str, ...], path: Path) -> np.ndarray:
    """pandas keeps the columns of each number type in a block of their own."""
    column = {sensor: i for i, sensor in enumerate(ids)}
    values = np.full((steps, len(ids), 1), np.nan, dtype=np.float32)
    block = 0
    while f"block{block}_values" in frame:
        sensors = _labels(frame[f"block{block}_items"], path)
        numbers = frame[f"block{block}_values"]
        if numbers.shape != (steps, len(sensors)) or numbers.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: values are {numbers.dtype} {list(numbers.shape)}, expected numbers {[steps, len(sensors)]}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which SensorData reports
            values[:, [column[sensor] for sensor in sensors], 0] = numbers[:]
        block += 1
    return values


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
