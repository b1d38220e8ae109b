"""Measurements that training refuses, read as far as they can be read."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlora_kernels.data.readers import read_npz, read_pandas_h5
from stlora_kernels.data.readers.files import NO_VALUE, is_number, reading
from stlora_kernels.data.readers.series_csv import is_long
from stlora_kernels.data.readers.times import WITH_OFFSET
from stlora_kernels.errors import InputError, require

NAMED = 5  # cells that are named one by one; of further ones there is a count


@dataclass(frozen=True, eq=False)
class Measurements:
    """Values as they stand in a file, checked by nobody.

    values: ``[S, N]`` float32. times: ``[S]`` datetime64[s], NaT where unreadable; None: the file has none.
    problems: what had to be passed over in reading, a line each. clock: ``[S]``, what clocks on the wall showed, where
    that is not ``times``.
    """

    values: np.ndarray
    times: np.ndarray | None
    sensor_ids: tuple[str, ...]
    problems: tuple[str, ...] = ()
    clock: np.ndarray | None = None


def read_leniently(path: Path) -> Measurements:
    """A ``.csv``, ``.h5`` or ``.npz`` of measurements; of a csv, whatever is no number is NaN, and said.

    Raises:
        InputError: if not even that can be read.
        MissingFileError: if there is no such file.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with reading(path, "a csv of measurements"):
            return _read_csv(path)
    if suffix in (".h5", ".hdf5"):
        values, times, ids = read_pandas_h5(path)
        return Measurements(values[..., 0], times, ids)
    if suffix == ".npz":
        values = read_npz(path)
        return Measurements(values[..., 0], None, tuple(str(i) for i in range(values.shape[1])))
    raise InputError(f"{path}: expected measurements as .csv, .h5 or .npz")


def _read_csv(path: Path) -> Measurements:
    wrong: list[str] = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        ids = tuple(cell.strip() for cell in next(reader, []))[1:]
        if not ids or is_long(ids):
            raise InputError(f"{path}, line 1: expected a header, the time and one column per sensor")
        moments, rows = [], []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(ids) + 1:
                wrong.append(f"line {reader.line_num} has {len(cells)} cells, expected {len(ids) + 1}")
                cells = (cells + [""] * len(ids))[: len(ids) + 1]
            moments.append(cells[0].strip())
            rows.append(_numbers(cells[1:], ids, reader.line_num, wrong))
    if not rows:
        raise InputError(f"{path} has a header but no rows")
    times, clock = _times_and_clock(moments)
    unreadable = np.isnat(times)
    if unreadable.any():
        wrong.append(
            f"times that cannot be read: {unreadable.sum()}, the first is {moments[int(unreadable.argmax())]!r}"
        )
    problems = wrong[:NAMED] + ([f"and {len(wrong) - NAMED} more like these"] if len(wrong) > NAMED else [])
    return Measurements(np.stack(rows), times, ids, tuple(problems), clock)


def _numbers(cells: list[str], ids: tuple[str, ...], line: int, wrong: list[str]) -> np.ndarray:
    numbers = np.full(len(cells), np.nan, dtype=np.float32)
    for i, cell in enumerate(map(str.strip, cells)):
        if is_number(cell):
            with np.errstate(over="ignore"):  # infinite, which is counted
                numbers[i] = np.float32(float(cell))
        elif cell.lower() not in NO_VALUE:
            wrong.append(f"line {line}, column {ids[i]}: {cell!r} is not a number")
    return numbers


def _times_and_clock(moments: list[str]) -> tuple[np.ndarray, np.ndarray]:
    pandas = require("pandas", "train")
    text = pandas.Series(moments)
    text = text.mask(text.map(is_number))
    read = (text, text.str.extract(WITH_OFFSET)["wall"].fillna(text))
    times, clock = (pandas.to_datetime(each, errors="coerce", format="mixed", utc=True) for each in read)
    return tuple(each.dt.tz_localize(None).to_numpy().astype("datetime64[s]") for each in (times, clock))
