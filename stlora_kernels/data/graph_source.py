"""Which graph a data set is used with, and the file that it is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from stlora_kernels.data.graph import binary_symmetric, nearest_neighbours, select_sensors
from stlora_kernels.data.readers import (
    read_graph_csv,
    read_graph_pickle,
    read_locations_csv,
    read_matrix_npy,
    read_road_csv,
)
from stlora_kernels.data.readers.files import warn_of_order
from stlora_kernels.data.registry import DatasetInfo
from stlora_kernels.errors import InputError, MissingFileError

# What a graph can be made of without a look at the measurements.
GraphKind = Literal["dataset", "binary", "kernel", "neighbours", "identity"]


@dataclass(frozen=True)
class GraphSource:
    """A graph that is yet to be read.

    Args:
        kind: "dataset": as the set is used in the field; "binary": the same edges, undirected and of weight 1;
            "kernel": ``gaussian_kernel`` of road distances; "neighbours": ``nearest_neighbours`` of coordinates;
            "identity": self-loops alone.
        path: the file it is made from; None for "identity".
        roads: what the field makes of the csv of distances that it publishes as ``path``; None: it does not.
    """

    kind: GraphKind
    path: Path | None = None
    roads: Literal["kernel", "binary"] | None = None

    def read(self, sensor_ids: tuple[str, ...]) -> np.ndarray:
        """The adjacency of these sensors, ``[N, N]`` float32.

        Raises:
            InputError: if the file is broken or does not know a sensor.
        """
        if self.path is None:
            return np.eye(len(sensor_ids), dtype=np.float32)
        if self.kind == "neighbours":
            return nearest_neighbours(read_locations_csv(self.path, sensor_ids))
        if self.kind == "kernel":
            return read_road_csv(self.path).to_kernel(sensor_ids, published=self.roads is not None)
        graph = self._own(self.path, sensor_ids)
        return binary_symmetric(graph > 0) if self.kind == "binary" else graph

    def _own(self, path: Path, sensor_ids: tuple[str, ...]) -> np.ndarray:
        suffix = path.suffix.lower()
        if self.roads == "kernel" and suffix == ".csv":
            return read_road_csv(path).to_kernel(sensor_ids, published=True)
        if self.roads == "binary":
            return binary_symmetric(np.isfinite(read_road_csv(path).to_matrix(sensor_ids, np.inf, published=True)))
        if suffix == ".csv":
            return read_graph_csv(path, sensor_ids)
        if suffix == ".npy":
            warn_of_order(path)
            return read_matrix_npy(path)
        if suffix != ".pkl":
            raise InputError(f"{path}: expected a graph as .csv, .pkl or .npy")
        matrix, ids = read_graph_pickle(path)
        return select_sensors(matrix, ids, sensor_ids, path)


def registered_graph(
    info: DatasetInfo, find: Callable[..., Path], kind: GraphKind, adjacency: Path | None, locations: Path | None
) -> GraphSource:
    """The graph of a data set by name.

    Args:
        find: gives the path of the first of the file names that is there.
        adjacency, locations: files to use in place of the set's own.

    Raises:
        InputError: if the set has no such file.
        MissingFileError: if it has one, which is not there.
    """
    if kind == "identity":
        return GraphSource(kind)
    if kind == "neighbours":
        if locations is None and info.locations_file is None:
            raise InputError(
                f"graph 'neighbours': {info.name} comes without coordinates; give locations, a csv of "
                "sensor_id,latitude,longitude"
            )
        return GraphSource(kind, locations or find(info.locations_file))
    if adjacency is not None:
        return GraphSource(kind, adjacency)
    if kind != "kernel":
        return GraphSource(kind, find(*info.graph_files), None if info.graph == "matrix" else info.graph)
    roads = [] if info.graph == "matrix" else [file for file in info.graph_files if file.endswith(".csv")]
    if not roads:
        raise InputError(
            f"graph 'kernel': {info.name} comes without distances; give adjacency, a csv of from,to,distance"
        )
    return GraphSource(kind, find(*roads), "kernel")


def own_graph(name: str, kind: GraphKind, adjacency: Path | None, locations: Path | None) -> GraphSource:
    """The graph of measurements of one's own, which messages call ``name``.

    Raises:
        InputError: if the file it would be made from was not given.
        MissingFileError: if that is not there.
    """
    path = locations if kind == "neighbours" else adjacency
    if path is None and kind != "identity":
        graph = "a graph of its sensors: give adjacency, a .csv, .pkl or .npy, or choose a graph that needs none"
        needs = {
            "neighbours": "the places of its sensors: give locations, a csv of sensor_id,latitude,longitude",
            "kernel": "the distances between its sensors: give adjacency, a csv of from,to,distance",
        }
        raise InputError(f"{name} needs {needs.get(kind, graph)}")
    if path is not None and not path.is_file():  # before much time is spent on the measurements
        raise MissingFileError(f"no file {path.absolute()}; give the path of an existing one")
    return GraphSource(kind, path)


def check_graph_options(graph: str, adjacency: Path | None, locations: Path | None) -> None:
    """Refuse a kind of graph there is not, and a file that this kind would not be made from.

    Raises:
        InputError: naming the option.
    """
    if graph not in get_args(GraphKind):
        raise InputError(f"graph is {graph!r}, expected one of {', '.join(get_args(GraphKind))}")
    if adjacency is not None and graph in ("neighbours", "identity"):
        raise InputError(f"adjacency is not an option of graph {graph!r}, which is not made from one")
    if locations is not None and graph != "neighbours":
        raise InputError(f"locations is not an option of graph {graph!r}, only of 'neighbours'")
