"""``load_dataset``: a data set by name, or one's own files."""

import logging
import os
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from stlora_kernels.data.folder import is_folder, read_folder
from stlora_kernels.data.graph import binary_symmetric, select_sensors
from stlora_kernels.data.own import Allocate, in_memory, is_own, load_own
from stlora_kernels.data.readers import (
    read_graph_csv,
    read_graph_pickle,
    read_matrix_npy,
    read_npz,
    read_pandas_h5,
    read_road_csv,
    read_series_csv,
)
from stlora_kernels.data.readers.files import reading
from stlora_kernels.data.registry import DATASETS, DatasetInfo, dataset_names
from stlora_kernels.data.sensor_data import SensorData
from stlora_kernels.data.steps import smallest_step
from stlora_kernels.data.synthetic import synthetic
from stlora_kernels.errors import InputError, MissingFileError

logger = logging.getLogger(__name__)


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    adjacency: str | Path | None = None,
    first_step: str | None = None,
    resample: int | None = None,
    snap: int | None = None,
    target: str | None = None,
    nodes: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    allocate: Allocate = in_memory,
) -> SensorData:
    """Load a data set.

    Args:
        name: one of ``dataset_names()``, in upper or lower case; or the path of a ``.csv`` (see
            ``readers.open_series_csv``) or ``.h5`` (``readers.open_pandas_h5``) of one's own, or a pattern for several
            of them, see ``load_own``; or a folder that ``python -m stlora_kernels.data convert`` wrote.
        data_dir: where the files are, as ``data_dir/NAME/file`` or ``data_dir/file``; None: the environment variable
            ``STLORA_DATA``. Not used for "synthetic" and one's own files.
        adjacency: a graph (``.csv``, ``.pkl`` or ``.npy``) to use in place of the set's own; required with one's own
            files. See ``readers.read_graph_csv`` for the tables it may be. An ``.npy`` names no sensors and is taken
            in their order, as a log line says.
        first_step: date and time of the first step of an ``.npz``, which holds no times. Without it the registry's
            calendar is used, and a file with fewer steps than the full set is taken to be its end, which is how the
            published part of PEMS08 was cut (7156 of 17856 steps, from 2016-08-07 03:40); a warning says so.
        resample, snap, target: of one's own files, see ``load_own``.
        nodes, steps, seed: size and seed of the "synthetic" set.
        allocate: see ``load_own``.

    Raises:
        InputError: if the name is unknown, a file is broken, an option does not apply, or graph and data disagree.
        MissingFileError: if a file is not there; the message says where it was looked for and how to get it.
        MissingExtraError: if pandas or h5py is needed and not installed.
    """
    info = DATASETS.get(name.lower())
    graph = None if adjacency is None else Path(adjacency)
    if name.lower() == "synthetic" or info is not None or not is_own(name):
        _refuse(name, resample=resample, snap=snap, target=target)
    if name.lower() == "synthetic":
        _refuse(name, adjacency=adjacency, first_step=first_step)
        options = {"nodes": nodes, "steps": steps, "seed": seed}
        return synthetic(**{option: value for option, value in options.items() if value is not None})
    _refuse(name, nodes=nodes, steps=steps, seed=seed)
    if info is None or not info.values_file.endswith(".npz"):
        _refuse(name, first_step=first_step)
    if info is not None:
        return _load_registered(info, _data_folder(data_dir), graph, first_step)
    if is_folder(name):
        data = read_folder(Path(name))
        return data if graph is None else replace(data, adjacency=_read_graph(graph, data.sensor_ids))
    if is_own(name):
        read_graph = partial(_read_graph, _own_graph(name, graph))
        return load_own(name, read_graph, resample=resample, snap=snap, target=target, allocate=allocate)
    raise InputError(
        f"unknown data set {name!r}, expected one of {', '.join(dataset_names())}, or the path of a .csv, .h5 or "
        "converted folder"
    )


def _refuse(name: str, **options: object) -> None:
    """Say of an option that has no meaning here that it has none, rather than ignore it."""
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is not an option of data set {name!r}")


def _load_registered(info: DatasetInfo, folder: Path, adjacency: Path | None, first_step: str | None) -> SensorData:
    values_path = _find(info, folder, info.values_file)
    graph_path = adjacency or _find(info, folder, *info.graph_files)
    ids_path = _find(info, folder, info.ids_file) if info.ids_file else None
    if values_path.suffix == ".npz":
        values = read_npz(values_path)
        if values.shape[1] != info.num_nodes:
            raise InputError(f"{values_path} has {values.shape[1]} sensors, {info.name} has {info.num_nodes}")
        times = _npz_times(info, len(values), first_step, values_path)
        ids = _read_ids(ids_path, info.num_nodes)
    else:
        read = read_pandas_h5 if values_path.suffix == ".h5" else read_series_csv
        values, times, ids = read(values_path)
        _check_step(times, info, values_path)
    if adjacency or info.graph == "matrix" or graph_path.suffix == ".pkl":
        graph = _read_graph(graph_path, ids)
    else:
        roads = read_road_csv(graph_path)
        is_kernel = info.graph == "kernel"
        graph = roads.to_kernel(ids) if is_kernel else binary_symmetric(np.isfinite(roads.to_matrix(ids, np.inf)))
    return SensorData(
        name=info.name,
        values=values,
        times=times,
        sensor_ids=ids,
        adjacency=graph,
        steps_per_day=info.steps_per_day,
        quantity=info.quantity,
        unit=info.unit,
        split=info.split,
        null_value=info.null_value,
        inputs="target",
    )


def _own_graph(name: str, adjacency: Path | None) -> Path:
    """The graph's file, which has to be there before much time is spent on the measurements."""
    if adjacency is None:
        raise InputError(f"{name} needs a graph of its sensors: give adjacency, a .csv, .pkl or .npy")
    if not adjacency.is_file():
        raise MissingFileError(f"no file {adjacency.absolute()}; give the path of an existing one")
    return adjacency


def _data_folder(data_dir: str | Path | None) -> Path:
    folder = data_dir or os.environ.get("STLORA_DATA")
    if not folder:
        raise MissingFileError("no data directory: give data_dir (--data-dir) or set STLORA_DATA")
    if not Path(folder).is_dir():
        wrong = "is not a folder" if Path(folder).exists() else "is not there"
        raise MissingFileError(f"the data directory {Path(folder).absolute()} {wrong}")
    return Path(folder)


def _find(info: DatasetInfo, folder: Path, *files: str) -> Path:
    """The first of ``files`` that is there, in the set's own folder or beside it."""
    places = [place / file for file in files for place in (folder / info.name, folder)]
    for place in places:
        if place.is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise MissingFileError(f"{info.name}: no {' or '.join(files)}, looked for {looked}; {info.source}")


def _npz_times(info: DatasetInfo, steps: int, first_step: str | None, path: Path) -> np.ndarray:
    """The calendar of an ``.npz``, ``[S]`` datetime64[s]; see ``load_dataset`` for the rule."""
    step = np.timedelta64(info.step_minutes * 60, "s")
    since_start = np.arange(steps) * step
    if first_step is not None:
        return _parse_first_step(first_step) + since_start
    start = np.datetime64(info.first_step, "s") + (info.num_steps - steps) * step
    if steps > info.num_steps:
        raise InputError(
            f"{path} has {steps} steps, {info.name} has {info.num_steps}: give first_step, the time of its first one"
        )
    elif steps < info.num_steps:
        logger.warning(
            "%s has %d of the %d steps of %s; taking them for the last ones, from %s (first_step overrides)",
            *(path, steps, info.num_steps, info.name, start),
        )
    return start + since_start


def _parse_first_step(text: str) -> np.datetime64:
    try:
        return np.datetime64(datetime.fromisoformat(text).replace(tzinfo=None), "s")
    except ValueError as error:
        raise InputError(f"first_step is {text!r}, expected a date and time such as 2016-08-07T03:40") from error


def _check_step(times: np.ndarray, info: DatasetInfo, path: Path) -> None:
    """Refuse a re-sampled file: its rhythm would be read wrongly, without any other sign."""
    step = smallest_step(times, str(path))
    if step != info.step_minutes * 60:
        raise InputError(f"{path} has steps of {step} s, {info.name} has steps of {info.step_minutes} minutes")


def _read_ids(path: Path | None, num_nodes: int) -> tuple[str, ...]:
    """Sensor ids in node order; where a set names no sensors, the nodes' numbers, by which its graph names them."""
    if path is None:
        return tuple(str(node) for node in range(num_nodes))
    with reading(path, "a list of sensor ids"):
        ids = tuple(path.read_text(encoding="utf-8").split())
    if len(ids) != num_nodes:
        raise InputError(f"{path} lists {len(ids)} sensor ids, expected {num_nodes}")
    return ids


def _read_graph(path: Path, sensor_ids: tuple[str, ...]) -> np.ndarray:
    """The adjacency in a file that holds one, in the order of ``sensor_ids``."""
    if path.suffix == ".csv":
        return read_graph_csv(path, sensor_ids)
    if path.suffix == ".npy":
        logger.info("%s names no sensors; taking its rows in the order of the data's sensors", path)
        return read_matrix_npy(path)
    if path.suffix != ".pkl":
        raise InputError(f"{path}: expected a graph as .csv, .pkl or .npy")
    matrix, ids = read_graph_pickle(path)
    return select_sensors(matrix, ids, sensor_ids, path)
