"""Measurements as a plain csv: the first column is the time, every further one a sensor."""

import warnings
from pathlib import Path

import numpy as np

from stlora_kernels.data.readers.files import csv_rows, is_number, parse_numbers, reading
from stlora_kernels.errors import InputError, require


def read_series_csv(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Values ``[S, N, 1]`` float32, times ``[S]`` datetime64[s] and the sensor ids of the header.

    Empty cells and nan, na, null or none are missing values. Times are wall-clock times, preferably as
    ``2015-01-31 08:15:00``; a time zone is dropped, since rhythms follow the clock on the wall.

    Raises:
        InputError: if the file is not such a table, naming line and column.
    """
    with reading(path, "a csv of measurements"):
        rows = csv_rows(path)
        _, header = next(rows, (0, [""]))
        ids = header[1:]
        if not ids:
            raise InputError(f"{path}, line 1: one column, expected the time and one column per sensor")
        lines, moments, values = [], [], []
        for line, (moment, *cells) in rows:
            lines.append(line)
            moments.append(moment)
            values.append(parse_numbers(cells, ids, path, line))
        if not values:
            raise InputError(f"{path} has a header but no rows")
        return np.stack(values)[:, :, None], _parse_times(moments, lines, path), tuple(ids)


def _parse_times(moments: list[str], lines: list[int], path: Path) -> np.ndarray:
    pandas = require("pandas", "train")
    text = pandas.Series(moments)
    text = text.mask(text.map(is_number))  # pandas would take a bare number for nanoseconds since 1970
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what it cannot parse, which is an error below
        times = pandas.to_datetime(text, errors="coerce")
    if times.isna().any():
        row = int(times.isna().argmax())
        raise InputError(
            f"{path}, line {lines[row]}, column 1: {moments[row]!r} is not a time such as 2015-01-31 08:15:00"
        )
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
