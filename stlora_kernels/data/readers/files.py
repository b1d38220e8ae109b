"""What all readers share: errors that name the file, and the cells of a csv."""

import csv
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stlora_kernels.errors import InputError, MissingExtraError, MissingFileError

logger = logging.getLogger(__name__)

# How people write "no value" in a csv; "nan" needs no mention, it is a number to float().
NO_VALUE = {"", "na", "n/a", "null", "none"}


# Measurements pack ten times denser at most; a file that claims more is broken, or made to fill the memory.
DENSEST = 100
SMALL = 2**30  # bytes that any file may claim


def check_size(shape: Sequence[int], dtype: np.dtype, path: Path, packed: int) -> None:
    """Refuse an array that would take far more memory than ``packed`` bytes of a file can hold, before it is made.

    Raises:
        InputError: if it takes more than 1 GiB and more than 100 times as much as its file.
    """
    claimed = math.prod(int(size) for size in shape) * dtype.itemsize
    if claimed > max(SMALL, DENSEST * packed):
        raise InputError(
            f"{path}: {packed / 2**20:.1f} MiB claim to hold {dtype} {list(shape)}, {claimed / 2**30:.1f} GiB; "
            "it is broken, or made to fill the memory"
        )


def warn_of_order(path: Path) -> None:
    """Say that sensors are matched by position: a matrix in another order would go unnoticed."""
    logger.warning("%s names no sensors; taking its rows in the order of the data's sensors", path)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser raises over a broken file into an ``InputError`` that names the file."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"no file {path.absolute()}; give the path of {what}") from error
    except Exception as error:  # zipfile, zlib, h5py, pickle and numpy each have errors of their own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path} cannot be read as {what} ({reason})") from error


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every row that is not blank.

    Raises:
        InputError: if a row is not as wide as the first one, naming file and line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        width = 0
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            width = width or len(cells)
            if len(cells) != width:
                raise InputError(f"{path}, line {reader.line_num}: {len(cells)} cells, expected {width}")
            yield reader.line_num, cells


def parse_numbers(cells: list[str], columns: list[str], path: Path, line: int) -> np.ndarray:
    """The cells of one row as float32, NaN for a cell without a value.

    Raises:
        InputError: if a cell is not a number, naming file, line and column.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which SensorData reports
        try:
            if "_" in "".join(cells):  # Python and numpy read 1_00 as 100
                raise ValueError("underscore")
            return np.array(cells, dtype=np.float32)
        except ValueError:  # a missing value, perhaps; look at each cell
            numbers = [_number(cell, column, path, line) for cell, column in zip(cells, columns, strict=True)]
            return np.array(numbers, dtype=np.float32)


def is_number(cell: str) -> bool:
    """Whether a cell is a number as people write it: not 1_00, which Python reads as 100."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _number(cell: str, column: str, path: Path, line: int) -> float:
    if cell.lower() in NO_VALUE:
        return float("nan")
    if not is_number(cell):
        raise InputError(f"{path}, line {line}, column {column}: {cell!r} is not a number")
    return float(cell)
