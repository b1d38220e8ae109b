"""``check``: what is in a data set, what is missing, and what looks wrong, before anything is trained on it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from stlora_kernels.data.converted import is_converted
from stlora_kernels.data.folders import data_folder, required_file
from stlora_kernels.data.graph import check_adjacency
from stlora_kernels.data.graph_source import own_graph, registered_graph
from stlora_kernels.data.inspection.found import Found
from stlora_kernels.data.inspection.lenient import Measurements, read_leniently
from stlora_kernels.data.inspection.report import print_report
from stlora_kernels.data.load import load_dataset
from stlora_kernels.data.missing import NullValue, null_value_of
from stlora_kernels.data.own import is_own
from stlora_kernels.data.readers import read_locations_csv
from stlora_kernels.data.registry import DATASETS, DatasetInfo
from stlora_kernels.data.sensor_data import SensorData
from stlora_kernels.errors import InputError, MissingFileError


@dataclass(frozen=True)
class CheckOptions:
    """Report what is in a data set, what is missing in it and what looks wrong, broken or not."""

    path: Positional[str]
    """name of a data set, a folder with its files or that convert wrote, or a file of one's own"""
    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""
    resample: int | None = None
    """minutes of a longer step, to which the measured values of one's own files are averaged"""
    snap: int | None = None
    """seconds by which the clock of one's own files may be early or late; such times are moved to the even step"""
    target: str | None = None
    """the channel of one's own files to look at, where there are several"""
    adjacency: Path | None = None
    """graph of a file of one's own, or to look at in place of the data set's"""
    locations: Path | None = None
    """csv of sensor_id,latitude,longitude for the map, if the data set has none"""
    null_value: NullValue = "dataset"
    """value that means missing, beside NaN; dataset: the data set's own (0; of a file of one's own none)"""
    picture: Path | None = None
    """also save a picture: missing values, daily profile, a few series, the sensors on the map (.png, .pdf, .svg)"""


def run(options: CheckOptions) -> None:
    """Print the report, and save the picture.

    Raises:
        InputError: if the measurements cannot be read at all, or there is no such set; and after the report, for
            whoever looks at the exit code, if training would refuse the measurements or a file that was named.
        MissingExtraError: for ``--picture`` without matplotlib.
    """
    if options.picture is not None:
        from stlora_kernels.data.inspection.picture import check_picture

        check_picture(options.picture)
    found = look(options)
    print_report(found)
    if options.picture is not None:
        from stlora_kernels.data.inspection.picture import save_picture

        save_picture(found, options.picture)
        print(f"Picture: {options.picture}")
    named = ((found.data, True), (found.adjacency, options.adjacency), (found.places, options.locations))
    for read, wanted in named:
        if wanted and isinstance(read, InputError):
            raise read


def look(options: CheckOptions) -> Found:
    """Read what there is, and remember what cannot be read."""
    null_value_of(options.null_value, None, "--null-value")
    name, folder = _resolved(options.path, options.data_dir)
    info = DATASETS.get(name.lower())
    how: dict[str, Any] = {"resample": options.resample, "snap": options.snap, "target": options.target}
    for option, value in how.items():
        if value is not None and not is_own(name):
            raise InputError(f"--{option} is not an option of data set {name!r}")
    data: SensorData | InputError
    try:
        # Without its graph, which may be broken by itself.
        graph: Any = "dataset" if _brings_graph(name) else "identity"
        data = load_dataset(name, folder, graph=graph, null_value=options.null_value, **how)
        read = Measurements(data.values[..., 0], data.times, data.sensor_ids, clock=data.clock)
        channels = data.values.shape[2]
    except MissingFileError:
        raise
    except InputError as error:
        data = error
        read, channels = _as_it_is(name, info, folder, error), 1
    adjacency = _graph(options, name, info, folder, data, read.sensor_ids)
    if isinstance(data, SensorData) and isinstance(adjacency, np.ndarray):
        data = _with_graph(data, adjacency)
    known = info or (data if isinstance(data, SensorData) else None)
    measures = f"{known.quantity} in {known.unit}" if known and known.unit else "measurements"
    null_value = info.null_value if info else data.null_value if isinstance(data, SensorData) else None
    return Found(
        name=data.name if isinstance(data, SensorData) else name,
        measures=measures,
        values=read.values,
        times=read.times,
        sensor_ids=read.sensor_ids,
        channels=channels,
        null_value=null_value_of(options.null_value, null_value),
        data=data,
        adjacency=adjacency,
        places=_places(options, info, folder, read.sensor_ids),
        problems=read.problems,
        full=(info.num_nodes, info.num_steps) if info else None,
        clock=read.clock,
    )


def _brings_graph(name: str) -> bool:
    return name.lower() == "synthetic" or is_converted(name)


def _resolved(path: str, data_dir: Path | None) -> tuple[str, Path | None]:
    """The name and the data directory; a folder with the files of a registered set stands for both."""
    if path.lower() in (*DATASETS, "synthetic") or not Path(path).is_dir() or is_converted(path):
        return path, data_dir
    for info in DATASETS.values():
        if any((Path(path) / file).is_file() for file in info.values_files):
            return info.name, Path(path)
    raise InputError(
        f"{path} is a folder, but neither of a converted data set nor with the files of a set that list knows; "
        "give the file of measurements itself"
    )


def _as_it_is(name: str, info: DatasetInfo | None, folder: Path | None, refused: InputError) -> Measurements:
    """The measurements that training refuses; if they cannot be read at all, its reason is the error."""
    path = required_file(info, data_folder(folder), *info.values_files) if info else Path(name)
    if not path.is_file() or not (info or is_own(name)):
        raise refused
    try:
        read = read_leniently(path)
    except InputError:
        raise refused from None
    if np.isnan(read.values).all():
        raise refused
    if read.times is None and info is not None:
        times = np.datetime64(info.first_step, "s") + np.arange(len(read.values)) * np.timedelta64(
            info.step_minutes * 60, "s"
        )
        note = f"the file has no times; those of the full set are shown, from {info.first_step}"
        return replace(read, times=times, problems=(*read.problems, note))
    return read


def _graph(
    options: CheckOptions,
    name: str,
    info: DatasetInfo | None,
    folder: Path | None,
    data: SensorData | InputError,
    sensor_ids: tuple[str, ...],
) -> np.ndarray | InputError:
    if _brings_graph(name) and options.adjacency is None and isinstance(data, SensorData):
        return data.adjacency
    try:
        if info is not None:
            find = partial(required_file, info, data_folder(folder))
            source = registered_graph(info, find, "dataset", options.adjacency, None)
        else:
            source = own_graph(name, "dataset", options.adjacency, None)
        adjacency = source.read(sensor_ids)
        check_adjacency(adjacency, len(sensor_ids), str(source.path))
        return adjacency
    except InputError as error:
        return error


def _with_graph(data: SensorData, adjacency: np.ndarray) -> SensorData | InputError:
    try:
        return replace(data, adjacency=adjacency)
    except InputError as error:
        return error


def _places(
    options: CheckOptions, info: DatasetInfo | None, folder: Path | None, sensor_ids: tuple[str, ...]
) -> np.ndarray | InputError:
    try:
        path = options.locations
        if path is None and info is not None and info.locations_file is not None:
            path = required_file(info, data_folder(folder), info.locations_file)
        if path is None:
            return InputError("no coordinates: give --locations")
        return read_locations_csv(path, sensor_ids)
    except InputError as error:
        return error
