"""Is this file what it is called? Its shape, steps, sensors and edges beside the facts of the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from stlora_kernels.data.load import load_dataset
from stlora_kernels.data.readers import (
    open_pandas_h5,
    read_graph_csv,
    read_graph_pickle,
    read_npz,
    read_pandas_h5,
    read_road_csv,
    read_series_csv,
)
from stlora_kernels.data.readers.files import reading
from stlora_kernels.data.readers.matrix_npy import map_npy
from stlora_kernels.data.registry import DatasetInfo
from stlora_kernels.data.windows import ForecastData
from stlora_kernels.errors import InputError

SCALER_TOLERANCE = 1e-4  # relative; float32 and the order of summation stay far below it
NO_DATA = {  # what servers send with status 200 in place of a file
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a git-lfs pointer",
}


@dataclass(frozen=True)
class Finding:
    """What a file turned out to be.

    Args:
        text: for people, such as "17856 steps of 170 sensors, 3 channels".
        is_part: it holds fewer steps or sensors than the full set, as the parts that are published for tests do.
    """

    text: str
    is_part: bool = False


def check_file(info: DatasetInfo, file: str, path: Path) -> Finding:
    """Compare ``path``, which is to become ``file`` of the set, with the registry.

    Raises:
        InputError: if it cannot be read as what it should be, or is not this data set or a part of it.
        MissingExtraError: if h5py or pandas is needed and not installed.
    """
    with path.open("rb") as opened:
        start = opened.read(512).lstrip().lower()
    for sign, what in NO_DATA.items():
        if start.startswith(sign):
            raise InputError(f"{path} is {what}, expected {file} of {info.name}")
    if file in info.values_files:
        return _check_year(info, file, path) if info.years else _check_values(info, file, path)
    if file == info.ids_file:
        return _check_ids(info, path)
    return _check_graph(info, file, path)


def check_set(info: DatasetInfo, folder: Path) -> list[str]:
    """Read the set as training will, and say how it comes out; its scaler is compared with the published one.

    Raises:
        InputError: if files do not fit each other, or the full set has another mean and standard deviation.
    """
    if info.years:  # too large to be read for a look
        return []
    task = ForecastData(load_dataset(info.name, folder))
    data, scaler = task.data, task.scaler
    edges = np.count_nonzero(data.adjacency) - np.count_nonzero(data.adjacency.diagonal())
    lines = [
        f"{data.num_steps} steps of {data.num_nodes} sensors, {data.times[0]} to {data.times[-1]}, {edges} edges",
        f"windows: {len(task.train)} training, {len(task.val)} validation, {len(task.test)} test",
        f"training inputs: mean {scaler.mean:.8g}, standard deviation {scaler.std:.8g}",
    ]
    if info.scaler is not None and (data.num_steps, data.num_nodes) == (info.num_steps, info.num_nodes):
        if not np.allclose((scaler.mean, scaler.std), info.scaler, rtol=SCALER_TOLERANCE, atol=0):
            raise InputError(
                f"{info.name}: mean and standard deviation of the training inputs are {scaler.mean:.8g} and "
                f"{scaler.std:.8g}, published are {info.scaler[0]:.8g} and {info.scaler[1]:.8g}: these are other values"
            )
        lines[-1] += ", as published"
    return lines


def _check_values(info: DatasetInfo, file: str, path: Path) -> Finding:
    if file.endswith(".npz"):
        values = read_npz(path)
        start = ""
        if values.shape[1] != info.num_nodes:  # its sensors have no ids, so that a part of them cannot be told
            raise InputError(f"{path} has {values.shape[1]} sensors, {info.name} has {info.num_nodes}")
    else:
        read: Callable = read_pandas_h5 if file.endswith(".h5") else read_series_csv
        values, times, _ = read(path)
        passed = np.diff(times).astype(np.int64)
        if len(times) < 2 or passed.min() != info.step_minutes * 60:
            raise InputError(f"{path}: expected steps of {info.step_minutes} minutes, as {info.name} has")
        if times[0] < np.datetime64(info.first_step):
            raise InputError(f"{path} begins at {times[0]}, {info.name} at {info.first_step}")
        start = f" from {times[0]}"
    steps, nodes, channels = values.shape
    if steps > info.num_steps or nodes > info.num_nodes:
        raise InputError(
            f"{path} has {steps} steps of {nodes} sensors, {info.name} has {info.num_steps} of {info.num_nodes}"
        )
    text = f"{steps} steps of {nodes} sensors, {channels} channel{'s' * (channels > 1)}{start}"
    return _finding(text, info, steps, nodes)


def _finding(text: str, info: DatasetInfo, steps: int, nodes: int) -> Finding:
    if (steps, nodes) == (info.num_steps, info.num_nodes):
        return Finding(text)
    return Finding(f"{text}: a part of {info.name}, which has {info.num_steps} steps of {info.num_nodes} sensors", True)


def _check_year(info: DatasetInfo, file: str, path: Path) -> Finding:
    """A year of LargeST, by its labels alone: the values are gigabytes."""
    year = next(year for year in info.years if str(year) in file)
    days = (date(year + 1, 1, 1) - date(year, 1, 1)).days
    expected = (days * 24 * 60 // (info.file_step_minutes or info.step_minutes), info.num_nodes)
    with open_pandas_h5(path) as opened:
        steps, nodes = opened.num_steps, len(opened.sensor_ids)
    if (steps, nodes) != expected:
        raise InputError(
            f"{path} has {steps} steps of {nodes} sensors, "
            f"{info.name} of {year} has {expected[0]} steps of {expected[1]} sensors"
        )
    return Finding(f"{expected[0]} steps of {expected[1]} sensors, {year}")


def _check_ids(info: DatasetInfo, path: Path) -> Finding:
    with reading(path, "a list of sensor ids"):
        ids = path.read_text(encoding="utf-8").split()
    if len(set(ids)) != info.num_nodes or len(ids) != info.num_nodes:
        raise InputError(f"{path} lists {len(ids)} sensor ids, {len(set(ids))} different, expected {info.num_nodes}")
    return Finding(f"{len(ids)} sensor ids")


def _check_graph(info: DatasetInfo, file: str, path: Path) -> Finding:
    if file.endswith(".pkl"):
        matrix, ids = read_graph_pickle(path)
        return _check_matrix(info, matrix, len(ids), path)
    if file.endswith(".npy"):
        matrix = map_npy(path)
        return _check_matrix(info, matrix, len(matrix), path)
    if info.graph == "matrix":
        positions = tuple(str(node) for node in range(info.num_nodes))
        return _check_matrix(info, read_graph_csv(path, positions), info.num_nodes, path)
    roads = read_road_csv(path)
    sensors = len({*roads.source, *roads.target})
    if info.graph == "binary" and len(roads.source) != info.edges:
        raise InputError(f"{path} has {len(roads.source)} distances, {info.name} has {info.edges}")
    return Finding(f"{len(roads.source)} distances between {sensors} sensors")


def _check_matrix(info: DatasetInfo, matrix: np.ndarray, nodes: int, path: Path) -> Finding:
    if matrix.shape != (nodes, nodes) or nodes > info.num_nodes:
        raise InputError(
            f"{path} holds {list(matrix.shape)}, expected a matrix of the {info.num_nodes} sensors of {info.name}"
        )
    edges = sum(np.count_nonzero(row) for row in matrix) - np.count_nonzero(matrix.diagonal())
    if nodes < info.num_nodes:
        return Finding(f"{edges} edges between {nodes} sensors: a part of {info.name}", True)
    if edges != info.edges:
        raise InputError(f"{path} has {edges} edges between different sensors, {info.name} has {info.edges}")
    return Finding(f"{edges} edges between {nodes} sensors")
