"""A data set as a folder of plain files: ``values.npy`` to be mapped into memory, ``adjacency.npy``, ``data.json``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stlora_kernels.data.readers.files import reading
from stlora_kernels.data.readers.matrix_npy import map_npy, read_matrix_npy
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY, SensorData
from stlora_kernels.errors import InputError
from stlora_kernels.files import reserve

ABOUT, VALUES, ADJACENCY = "data.json", "values.npy", "adjacency.npy"
FORMAT = 1  # of data.json; a reader of another one refuses the folder
TEXTS = ("name", "quantity", "unit", "inputs")


def is_converted(name: str) -> bool:
    """Whether ``read_converted`` is meant."""
    return (Path(name) / ABOUT).is_file()


def read_converted(folder: Path) -> SensorData:
    """The data set in a folder that ``write_converted`` filled; its values are mapped into memory, not read.

    Raises:
        InputError: if a file is missing, broken or of another format, or files do not fit each other.
    """
    with reading(folder / ABOUT, "a data set's description"):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(f"{folder / ABOUT}: expected format {FORMAT} of a converted data set")
        step = SECONDS_PER_DAY // about["steps_per_day"]
        num_steps = about["num_steps"]
        texts: dict[str, Any] = {text: str(about[text]) for text in TEXTS}
        if not isinstance(about["sensor_ids"], list):
            raise InputError(f"{folder / ABOUT}: sensor_ids is {about['sensor_ids']!r}, expected a list")
        ids = tuple(map(str, about["sensor_ids"]))
        train, val, test = (float(share) for share in about["split"])
        null_value = None if about["null_value"] is None else float(about["null_value"])
    if texts["inputs"] not in ("target", "all"):
        raise InputError(f"{folder / ABOUT}: inputs is {texts['inputs']!r}, expected 'target' or 'all'")
    values = map_npy(folder / VALUES)
    if values.shape[:1] != (num_steps,):
        raise InputError(f"{folder / VALUES}: {list(values.shape)}, expected {num_steps} steps as in {ABOUT}")
    with reading(folder / ABOUT, "a data set's description"):
        times = _from_runs(about["times"], step, num_steps)
        clock = None if about["clock"] is None else _from_runs(about["clock"], step, num_steps)
    return SensorData(
        values=values,
        times=times,
        sensor_ids=ids,
        adjacency=read_matrix_npy(folder / ADJACENCY),
        steps_per_day=about["steps_per_day"],
        split=(train, val, test),
        null_value=null_value,
        synthetic=bool(about["synthetic"]),
        clock=clock,
        **texts,
    )


def write_converted(folder: Path, data: SensorData) -> None:
    """Fill a folder with the description and the graph of ``data``, and its values unless they lie there already.

    Raises:
        OSError: if there is no room for them.
    """
    file = getattr(data.values, "filename", None)
    if file is None or Path(file).parent != folder:
        out = new_values(folder, data.values.shape)
        rows = max(2**24 // data.values[0].size, 1)
        for start in range(0, len(out), rows):
            out[start : start + rows] = data.values[start : start + rows]
        out.flush()
    _new_array(folder / ADJACENCY, data.adjacency.shape)[:] = data.adjacency
    step = np.timedelta64(SECONDS_PER_DAY // data.steps_per_day, "s")
    about: dict[str, Any] = {
        "format": FORMAT,
        **{text: getattr(data, text) for text in TEXTS},
        "split": data.split,
        "null_value": data.null_value,
        "synthetic": data.synthetic,
        "steps_per_day": data.steps_per_day,
        "num_steps": data.num_steps,
        "times": _runs(data.times, step),
        "clock": None if data.clock is None else _runs(data.clock, step),
        "sensor_ids": data.sensor_ids,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def new_values(folder: Path, shape: tuple[int, ...]) -> np.memmap:
    """The values of a new data set, to be filled in place on the disk.

    Raises:
        OSError: if there is no room for them.
    """
    return _new_array(folder / VALUES, shape)


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    reserve(path)
    return array


def _runs(times: np.ndarray, step: np.timedelta64) -> list[tuple[str, int]]:
    """``[S]`` times as the first one of every run of steps without a gap, and the number of its steps."""
    first = np.flatnonzero(np.diff(times, prepend=times[:1]) != step)
    return [(str(times[i]), int(n)) for i, n in zip(first, np.diff(first, append=len(times)), strict=True)]


def _from_runs(runs: Any, step: int, num_steps: int) -> np.ndarray:
    counts = [int(count) for _, count in runs]
    if min(counts) < 1 or sum(counts) != num_steps:
        raise ValueError(f"{sum(counts)} times, expected {num_steps}")
    starts = [np.datetime64(str(start), "s") for start, _ in runs]
    seconds = np.timedelta64(step, "s")
    return np.concatenate([start + np.arange(n) * seconds for start, n in zip(starts, counts, strict=True)])
