"""The times of a csv: with or without their distance from UTC."""

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stlora_kernels.errors import InputError, require

# A time of day, then the distance from UTC: "08:15:00-07:00", "08:15Z", "08:15 +0100".
WITH_OFFSET = r"^(?P<wall>.*\d:\d.*?)\s*(?P<offset>[zZ]|UTC|[+-]\d\d(?::?\d\d)?)$"
HAS_OFFSET = re.compile(WITH_OFFSET)
YEAR_FIRST = re.compile(r"\d{4}(\D|\d{4}(\D|$))")
LARGEST_OFFSET = 14 * 3600
LARGEST_CHANGE = 2 * 3600  # by which clocks are set anywhere; more is another zone, whose clocks show other hours


class Times(NamedTuple):
    """``times``, ``clock`` and ``offset`` of a :class:`Recording`, in the file's order."""

    times: np.ndarray
    clock: np.ndarray | None
    offset: int | None


def parse_times(moments: list[str], lines: list[int], path: Path) -> Times:
    """Times as people write them, the year first, ``2015-01-31 08:15:00``.

    With offsets from UTC behind them (``-08:00``, ``Z``) they are read as moments: an hour that clocks show twice is
    two hours, and one that they skip is no gap. Without, they are taken for a clock that is never set.

    Raises:
        InputError: for what is no such time or between two seconds, where only some times have an offset, or their
            offsets are of more than one zone, naming the line.
    """
    pandas = require("pandas", "train")
    text = pandas.Series(moments, dtype=object)
    parts = text.str.extract(WITH_OFFSET)
    has_offset = parts["offset"].notna().to_numpy()
    if has_offset.any() and not has_offset.all():
        row = int((has_offset != has_offset[0]).argmax())
        with_it, without = ("without", "with") if has_offset[0] else ("with", "without")
        raise InputError(
            f"{path}, line {lines[row]}, column 1: {moments[row]!r} is {with_it} an offset from UTC, "
            f"the lines before are {without}"
        )
    wall_text = parts["wall"].where(has_offset, text)
    wall_text = wall_text.where(wall_text.map(lambda moment: bool(YEAR_FIRST.match(moment))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what it cannot parse, which is an error below
        try:
            parsed = pandas.to_datetime(wall_text, errors="coerce")
        except ValueError:  # several offsets that are not written as WITH_OFFSET has them
            parsed = wall_text
        bad = parsed.isna().to_numpy()
        if not isinstance(parsed.dtype, np.dtype) or parsed.dtype.kind != "M":  # with such offsets it is UTC
            bad = wall_text.map(lambda moment: pandas.to_datetime(moment, errors="coerce").tzinfo is not None)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{path}, line {lines[row]}, column 1: {moments[row]!r} is not a time such as 2015-01-31 08:15:00 "
            "or 2015-01-31 08:15:00-07:00"
        )
    exact = parsed.to_numpy()
    wall = exact.astype("datetime64[s]")
    if (wall != exact).any():
        row = int((wall != exact).argmax())
        raise InputError(
            f"{path}, line {lines[row]}, column 1: {moments[row]!r} is between two seconds, expected whole ones"
        )
    if not has_offset.any():
        return Times(wall, None, None)
    seconds = {offset: _seconds(offset) for offset in parts["offset"].unique()}
    offsets = parts["offset"].map(seconds).to_numpy(dtype=np.int64)
    if (np.abs(offsets) > LARGEST_OFFSET).any():
        row = int((np.abs(offsets) > LARGEST_OFFSET).argmax())
        raise InputError(f"{path}, line {lines[row]}, column 1: {moments[row]!r} is more than 14 hours from UTC")
    other_zone = np.abs(offsets - offsets[0]) > LARGEST_CHANGE
    if other_zone.any():
        row = int(other_zone.argmax())
        raise InputError(
            f"{path}, line {lines[row]}, column 1: {moments[row]!r} is {offset_text(offsets[row])} from UTC, "
            f"line {lines[0]} {offset_text(offsets[0])}, expected at most 2 hours between them"
        )
    times = wall - (offsets - offsets[0]).astype("timedelta64[s]")
    return Times(times, None if (times == wall).all() else wall, int(offsets[0]))


def _seconds(offset: str) -> int:
    if offset in ("z", "Z", "UTC"):
        return 0
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return (-1 if offset[0] == "-" else 1) * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)


def offset_text(seconds: int | None) -> str:
    """A distance from UTC as people write it: ``-08:00``."""
    hours, minutes = divmod(abs(seconds or 0) // 60, 60)
    return f"{'-' if (seconds or 0) < 0 else '+'}{hours:02}:{minutes:02}"


def set_back_hint(moment: str) -> str:
    """What to do about a time that does not come after the one before it."""
    if HAS_OFFSET.match(moment):
        return "expected times that increase"
    return (
        "expected times that increase; where clocks were set back, write every time with its offset from UTC, "
        f"such as {moment}-08:00"
    )
