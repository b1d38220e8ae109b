"""``load_dataset``: a data set by name, or one's own files."""

import logging
import math
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stlora_kernels.data.converted import is_converted, read_converted
from stlora_kernels.data.folders import data_folder, find_file, required_file
from stlora_kernels.data.graph import binary_symmetric
from stlora_kernels.data.graph_source import GraphKind, GraphSource, check_graph_options, own_graph, registered_graph
from stlora_kernels.data.missing import NullValue, null_value_of
from stlora_kernels.data.own import Allocate, in_memory, is_own, load_own, own_paths
from stlora_kernels.data.readers import read_npz, read_pandas_h5, read_series_csv
from stlora_kernels.data.readers.files import reading
from stlora_kernels.data.registry import DATASETS, DatasetInfo, dataset_names
from stlora_kernels.data.sensor_data import SensorData
from stlora_kernels.data.steps import smallest_step
from stlora_kernels.data.synthetic import synthetic
from stlora_kernels.errors import InputError

logger = logging.getLogger(__name__)

LARGE = 2 * 10**9  # bytes of values in memory, from which on a converted folder is advised


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    graph: GraphKind = "dataset",
    adjacency: str | Path | None = None,
    locations: str | Path | None = None,
    first_step: str | None = None,
    resample: int | None = None,
    snap: int | None = None,
    target: str | None = None,
    null_value: NullValue = "dataset",
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
            ``STLORA_DATA``, or else ``~/.cache/stlora``, where ``python -m stlora_kernels.data download NAME`` puts
            them. Not used for "synthetic" and one's own files. Of the years of LargeST those that are there are
            taken; a warning names the others.
        graph: what the adjacency is made of, see ``GraphSource``. For one made of measurements see
            ``correlation_graph``.
        adjacency: a graph (``.csv``, ``.pkl`` or ``.npy``) to use in place of the set's own; required with one's own
            files unless ``graph`` does without. See ``readers.read_graph_csv`` for the tables it may be. A matrix
            that names no sensors is taken in their order, as a warning says. For the graph "kernel" a csv of
            distances, see ``readers.read_road_csv``.
        locations: for the graph "neighbours", a csv of coordinates to use in place of the set's own; see
            ``readers.read_locations_csv``.
        first_step: date and time of the first step of an ``.npz``, which holds no times. Without it the registry's
            calendar is used, and a file with fewer steps than the full set is taken to be its end, which is how the
            published part of PEMS08 was cut (7156 of 17856 steps, from 2016-08-07 03:40); a warning says so.
        resample, snap, target: of one's own files, see ``load_own``.
        null_value: the value that means missing in the target, beside NaN; "none": no other does; "dataset": the set's
            own, 0, and of one's own files none. Of one's own files that are averaged to longer steps, it is passed
            over. LargeST's five minutes are averaged with their zeros, as the field does it: in its raw files NaN
            means missing.
        nodes, steps, seed: size and seed of the "synthetic" set.
        allocate: see ``load_own``.

    Raises:
        InputError: if the name is unknown, a file is broken, an option does not apply, or graph and data disagree.
        MissingFileError: if a file is not there; the message says where it was looked for and how to get it.
        MissingExtraError: if pandas or h5py is needed and not installed.
    """
    info = DATASETS.get(name.lower())
    given = [None if file is None else Path(file) for file in (adjacency, locations)]
    check_graph_options(graph, *given)
    own_null_value = null_value_of(null_value, None)
    if name.lower() == "synthetic" or info is not None or not is_own(name):
        _refuse(name, resample=resample, snap=snap, target=target)
    if name.lower() == "synthetic":
        _refuse(name, adjacency=adjacency, locations=locations, first_step=first_step)
        options = {"nodes": nodes, "steps": steps, "seed": seed}
        if graph in ("kernel", "neighbours"):
            lacks = "distances" if graph == "kernel" else "coordinates"
            raise InputError(f"graph {graph!r}: the sensors of data set {name!r} have no {lacks}")
        data = synthetic(**{option: value for option, value in options.items() if value is not None})
        return _changed(data, null_value, graph)
    _refuse(name, nodes=nodes, steps=steps, seed=seed)
    if info is None or not info.values_file.endswith(".npz"):
        _refuse(name, first_step=first_step)
    if info is not None:
        info = replace(info, null_value=null_value_of(null_value, info.null_value))
        return _load_registered(info, data_folder(data_dir), first_step, allocate, graph, *given)
    if is_converted(name):
        return _changed(read_converted(Path(name)), null_value, graph, *given)
    if is_own(name):
        paths, source = own_paths(name), own_graph(name, graph, *given)
        how: dict[str, Any] = {"resample": resample, "snap": snap, "target": target, "null_value": own_null_value}
        return load_own(paths, source.read, **how, allocate=allocate)
    if Path(name).is_file():
        raise InputError(f"{name}: measurements of one's own are read from .csv and .h5 (pandas, fixed format) alone")
    raise InputError(
        f"unknown data set {name!r}, expected one of {', '.join(dataset_names())}, or the path of a .csv, .h5 or "
        "converted folder"
    )


def _refuse(name: str, **options: object) -> None:
    """Say of an option that has no meaning here that it has none, rather than ignore it."""
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is not an option of data set {name!r}")


def _changed(
    data: SensorData,
    null_value: NullValue,
    graph: GraphKind,
    adjacency: Path | None = None,
    locations: Path | None = None,
) -> SensorData:
    """Data that bring a graph and a null value with them, with those that were asked for."""
    changes: dict[str, Any] = {}
    if null_value_of(null_value, data.null_value) != data.null_value:
        changes["null_value"] = null_value_of(null_value, data.null_value)
    if adjacency is None and graph == "binary":
        changes["adjacency"] = binary_symmetric(data.adjacency > 0)
    elif adjacency is not None or graph != "dataset":
        changes["adjacency"] = own_graph(data.name, graph, adjacency, locations).read(data.sensor_ids)
    return replace(data, **changes) if changes else data


def _load_registered(
    info: DatasetInfo,
    folder: Path,
    first_step: str | None,
    allocate: Allocate,
    graph: GraphKind,
    adjacency: Path | None,
    locations: Path | None,
) -> SensorData:
    values_path = required_file(info, folder, *info.values_files)
    source = registered_graph(info, partial(required_file, info, folder), graph, adjacency, locations)
    if info.years:
        return _load_years(info, folder, source, allocate)
    ids_path = required_file(info, folder, info.ids_file) if info.ids_file else None
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
    return SensorData(
        name=info.name,
        values=values,
        times=times,
        sensor_ids=ids,
        adjacency=source.read(ids),
        steps_per_day=info.steps_per_day,
        quantity=info.quantity,
        unit=info.unit,
        split=info.split,
        null_value=info.null_value,
        inputs="target",
    )


def _load_years(info: DatasetInfo, folder: Path, source: GraphSource, allocate: Allocate) -> SensorData:
    found = {year: find_file(info, folder, file) for year, file in zip(info.years, info.values_files, strict=True)}
    there = {year: path for year, path in found.items() if path is not None}
    if len(there) < len(found):
        absent = ", ".join(str(year) for year in found if year not in there)
        logger.warning("%s has no files of %s; taking %s alone", info.name, absent, ", ".join(map(str, there)))
    paths = list(there.values())

    def read_graph(sensor_ids: tuple[str, ...]) -> np.ndarray:
        if len(sensor_ids) != info.num_nodes:
            raise InputError(f"{paths[0]} has {len(sensor_ids)} sensors, {info.name} has {info.num_nodes}")
        return source.read(sensor_ids)

    def room(shape: tuple[int, int, int]) -> np.ndarray:
        size = 4 * math.prod(shape)
        if allocate is in_memory and size > LARGE:
            logger.warning(
                "%s takes %.1f GB of memory; `python -m stlora_kernels.data convert %s FOLDER` writes it to a folder "
                "that is loaded in its place without being read",
                *(info.name, size / 1e9, info.name),
            )
        return allocate(shape)

    data = load_own(paths, read_graph, resample=info.step_minutes, allocate=room)
    facts = {name: getattr(info, name) for name in ("name", "quantity", "unit", "split", "null_value")}
    return replace(data, inputs="target", **facts)


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
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"first_step is {text!r}, expected a date and time such as 2016-08-07T03:40") from error
    if time.tzinfo is not None:
        raise InputError(f"first_step is {text!r}, expected a local time, without an offset from UTC")
    return np.datetime64(time, "s")


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
