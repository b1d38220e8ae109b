"""``load_dataset``: a data set by name, or one's own csv."""

import logging
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from stlora_kernels.data.folders import data_folder, required_file
from stlora_kernels.data.graph import binary_symmetric
from stlora_kernels.data.graph_source import GraphKind, GraphSource, check_graph_options, own_graph, registered_graph
from stlora_kernels.data.readers import read_npz, read_pandas_h5, read_series_csv
from stlora_kernels.data.readers.files import reading
from stlora_kernels.data.registry import DATASETS, DatasetInfo, dataset_names
from stlora_kernels.data.sensor_data import SECONDS_PER_DAY, SensorData
from stlora_kernels.data.synthetic import synthetic
from stlora_kernels.errors import InputError

logger = logging.getLogger(__name__)


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    graph: GraphKind = "dataset",
    adjacency: str | Path | None = None,
    locations: str | Path | None = None,
    first_step: str | None = None,
    nodes: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> SensorData:
    """Load a data set.

    Args:
        name: one of ``dataset_names()``, in upper or lower case, or the path of a csv of one's own: first column the
            time, every further one a sensor.
        data_dir: where the files are, as ``data_dir/NAME/file`` or ``data_dir/file``; None: the environment variable
            ``STLORA_DATA``, or else ``~/.cache/stlora``, where ``python -m stlora_kernels.data download NAME`` puts
            them. Not used for "synthetic" and one's own csv.
        graph: what the adjacency is made of, see ``GraphSource``. For one made of measurements see
            ``correlation_graph``.
        adjacency: a graph (``.csv`` or ``.pkl``) to use in place of the set's own; required with one's own csv unless
            ``graph`` does without. See ``readers.read_graph_csv`` for the tables it may be. For the graph "kernel" a
            csv of distances, see ``readers.read_road_csv``.
        locations: for the graph "neighbours", a csv of coordinates to use in place of the set's own; see
            ``readers.read_locations_csv``.
        first_step: date and time of the first step of an ``.npz``, which holds no times. Without it the registry's
            calendar is used, and a file with fewer steps than the full set is taken to be its end, which is how the
            published part of PEMS08 was cut (7156 of 17856 steps, from 2016-08-07 03:40); a warning says so.
        nodes, steps, seed: size and seed of the "synthetic" set.

    Raises:
        InputError: if the name is unknown, a file is broken, an option does not apply, or graph and data disagree.
        MissingFileError: if a file is not there; the message says where it was looked for and how to get it.
        MissingExtraError: if pandas or h5py is needed and not installed.
    """
    info = DATASETS.get(name.lower())
    given = [None if file is None else Path(file) for file in (adjacency, locations)]
    check_graph_options(graph, *given)
    if name.lower() == "synthetic":
        _refuse(name, adjacency=adjacency, locations=locations, first_step=first_step)
        options = {"nodes": nodes, "steps": steps, "seed": seed}
        data = synthetic(**{option: value for option, value in options.items() if value is not None})
        return _regraphed(data, graph)
    _refuse(name, nodes=nodes, steps=steps, seed=seed)
    if info is None or not info.values_file.endswith(".npz"):
        _refuse(name, first_step=first_step)
    if info is not None:
        return _load_registered(info, data_folder(data_dir), first_step, graph, *given)
    if name.lower().endswith(".csv"):
        return _load_own(Path(name), own_graph(name, graph, *given))
    raise InputError(f"unknown data set {name!r}, expected one of {', '.join(dataset_names())}, or the path of a .csv")


def _refuse(name: str, **options: object) -> None:
    """Say of an option that has no meaning here that it has none, rather than ignore it."""
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is not an option of data set {name!r}")


def _regraphed(data: SensorData, graph: GraphKind) -> SensorData:
    """The generated data, which know no roads and no places, with another graph."""
    if graph == "dataset":
        return data
    if graph == "binary":
        return replace(data, adjacency=binary_symmetric(data.adjacency > 0))
    if graph == "identity":
        return replace(data, adjacency=GraphSource("identity").read(data.sensor_ids))
    lacks = "distances" if graph == "kernel" else "coordinates"
    raise InputError(f"graph {graph!r}: the sensors of data set {data.name!r} have no {lacks}")


def _load_registered(
    info: DatasetInfo,
    folder: Path,
    first_step: str | None,
    graph: GraphKind,
    adjacency: Path | None,
    locations: Path | None,
) -> SensorData:
    values_path = required_file(info, folder, *info.values_files)
    source = registered_graph(info, partial(required_file, info, folder), graph, adjacency, locations)
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
    )


def _load_own(path: Path, source: GraphSource) -> SensorData:
    """One's own csv: its step is the smallest distance between two times, so gaps may be any number of steps."""
    values, times, ids = read_series_csv(path)
    step = _smallest_step(times, path)
    if SECONDS_PER_DAY % step:
        raise InputError(f"{path}: the smallest step of time is {step} seconds, expected a part of a day")
    return SensorData(
        name=path.stem,
        values=values,
        times=times,
        sensor_ids=ids,
        adjacency=source.read(ids),
        steps_per_day=SECONDS_PER_DAY // step,
        quantity="value",
        unit="",
        split=(0.7, 0.1, 0.2),
        null_value=None,
    )



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


def _smallest_step(times: np.ndarray, path: Path) -> int:
    """Seconds between the two nearest times; NaT counts as going back."""
    if len(times) < 2:
        raise InputError(f"{path} has {len(times)} step, expected at least 2")
    passed = np.diff(times).astype(np.int64)
    if passed.min() < 1:
        i = int(passed.argmin()) + 1
        raise InputError(f"{path}: {times[i]} follows {times[i - 1]}, expected times that increase")
    return int(passed.min())


def _check_step(times: np.ndarray, info: DatasetInfo, path: Path) -> None:
    """Refuse a re-sampled file: its rhythm would be read wrongly, without any other sign."""
    step = _smallest_step(times, path)
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
