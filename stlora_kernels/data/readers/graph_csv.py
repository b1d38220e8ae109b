"""Graphs as csv: a matrix, with or without the sensors' ids, or a list of edges."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlora_kernels.data.graph import check_unique, first_few, gaussian_kernel, select_sensors
from stlora_kernels.data.readers.files import csv_rows, is_number, parse_numbers, reading, warn_of_order
from stlora_kernels.errors import InputError

logger = logging.getLogger(__name__)

Rows = list[tuple[int, list[str]]]  # line number and cells


@dataclass(frozen=True, eq=False)
class Edges:
    """``E`` directed edges between sensors named by id, and a number for each (``[E]`` float32)."""

    path: Path
    source: list[str]
    target: list[str]
    number: np.ndarray

    def to_matrix(self, sensor_ids: tuple[str, ...], absent: float, *, published: bool = False) -> np.ndarray:
        """``[N, N]`` in the order of ``sensor_ids``, ``absent`` where there is no edge; others' edges are left out.

        A warning counts them, unless the file is ``published``: the field's are known to hold other sensors.

        Raises:
            InputError: if no edge joins two of these sensors, or two of them have the same id.
        """
        path = self.path
        check_unique(sensor_ids, f"{path}, the data it is for")
        index = {sensor: i for i, sensor in enumerate(sensor_ids)}
        matrix = np.full((len(index), len(index)), absent, dtype=np.float32)
        ends = [(index.get(a), index.get(b)) for a, b in zip(self.source, self.target, strict=True)]
        inside = [i for i, (a, b) in enumerate(ends) if a is not None and b is not None]
        if not inside:
            raise InputError(
                f"{path}: no edge joins two of the {len(sensor_ids)} sensors {first_few(sensor_ids)}; "
                f"the edges name {first_few(self.source)}"
            )
        if len(inside) < len(ends) and not published:
            joined = {end for i in inside if ends[i][0] != ends[i][1] for end in ends[i]}
            logger.warning(
                "%s: %d of %d edges kept, %d left out that name sensors which the data lack; "
                "sensors of the data without an edge: %d",
                *(path, len(inside), len(ends), len(ends) - len(inside), len(index) - len(joined)),
            )
        rows, columns = zip(*(ends[i] for i in inside), strict=True)
        matrix[rows, columns] = self.number[inside]
        return matrix

    def to_kernel(self, sensor_ids: tuple[str, ...], *, published: bool = False) -> np.ndarray:
        """``gaussian_kernel`` of the distances between ``sensor_ids``, ``[N, N]``; a warning names its losses.

        The kernel was made for the distances of all pairs; of a list of neighbours it may drop the longer half.

        Raises:
            InputError: if no two of these sensors are joined, or all distances are equal.
        """
        distances = self.to_matrix(sensor_ids, absent=np.inf, published=published)
        try:
            weights = gaussian_kernel(distances)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        given = np.isfinite(distances)
        cut_off = given.any(axis=1) & ~weights.any(axis=1)
        if cut_off.any():
            logger.warning(
                "%s: %d of %d distances are short enough for an edge, and %d sensors lose their last one; "
                "the columns from,to alone keep every edge",
                *(self.path, np.count_nonzero(weights), given.sum(), cut_off.sum()),
            )
        return weights


def read_road_csv(path: Path) -> Edges:
    """The road distances that come with the field's data sets: ``from,to,cost``, with or without that header.

    Raises:
        InputError: if the file is not such a table, has other columns, or a distance is missing or negative.
    """
    with reading(path, "a csv of road distances"):
        rows = list(csv_rows(path))
        has_header = bool(rows) and not is_number(rows[0][1][-1])
        header = [cell.lower() for cell in rows[0][1]] if has_header else ["from", "to", "cost"]
        if header not in (["from", "to", "cost"], ["from", "to", "distance"]):
            raise InputError(
                f"{path}, line 1: columns {','.join(rows[0][1])}, expected from,to,cost or from,to,distance"
            )
        return _edges(rows[has_header:], path)


def read_graph_csv(path: Path, sensor_ids: tuple[str, ...]) -> np.ndarray:
    """The graph of the given sensors, ``[N, N]`` float32, from one of these tables:

    - a bare ``N x N`` matrix, in the order of the sensors;
    - a matrix with the sensors' ids as header, and perhaps as first column too: matched by id;
    - edges ``from,to,weight`` by sensor id, used as they are; ``from,to,cost`` or ``from,to,distance`` turned into
      weights by ``gaussian_kernel``; or ``from,to`` alone, of weight 1.

    Sensors that the data does not have are left out, and their edges, which a warning counts.

    Raises:
        InputError: if the file is none of these, or lacks a sensor of the data.
    """
    with reading(path, "a csv of a graph"):
        rows = list(csv_rows(path))
        if not rows:
            raise InputError(f"{path} is empty, expected a matrix or edges from,to,weight")
        header = [cell.lower() for cell in rows[0][1]]
        if header[:2] == ["from", "to"]:
            return _from_edges(rows, header[2:], sensor_ids, path)
        return _from_matrix(rows, sensor_ids, path)


def _from_edges(rows: Rows, meaning: list[str], sensor_ids: tuple[str, ...], path: Path) -> np.ndarray:
    if meaning == []:
        return _edges([(line, [*cells, "1"]) for line, cells in rows[1:]], path).to_matrix(sensor_ids, absent=0)
    if meaning == ["weight"]:
        return _edges(rows[1:], path).to_matrix(sensor_ids, absent=0)
    if meaning in (["cost"], ["distance"]):
        return _edges(rows[1:], path).to_kernel(sensor_ids)
    raise InputError(f"{path}, line 1: columns from,to,{','.join(meaning)}; the third one has to be weight or distance")


def _from_matrix(rows: Rows, sensor_ids: tuple[str, ...], path: Path) -> np.ndarray:
    first = rows[0][1]
    if len(rows) == len(first) + 1:  # a header of ids
        ids, rows = first, rows[1:]
    elif len(rows) == len(first) and not is_number(first[0]):  # a header and a first column of ids
        ids, rows = first[1:], [(line, cells[1:]) for line, cells in _rows_named(first[1:], rows[1:], path)]
    elif len(rows) == len(first):
        ids = None
        warn_of_order(path)
    else:
        raise InputError(f"{path} is a table of {len(rows)} x {len(first)}, expected a square matrix")
    columns = ids or [str(i + 1) for i in range(len(first))]
    matrix = np.stack([parse_numbers(cells, columns, path, line) for line, cells in rows])
    return matrix if ids is None else select_sensors(matrix, tuple(ids), sensor_ids, path)


def _rows_named(ids: list[str], rows: Rows, path: Path) -> Rows:
    """The rows, whose first cells have to be the ids of the header, in the same order."""
    for sensor, (line, cells) in zip(ids, rows, strict=True):
        if cells[0] != sensor:
            raise InputError(f"{path}, line {line}: row of sensor {cells[0]!r}, expected {sensor!r} as in the header")
    return rows


def _edges(rows: Rows, path: Path) -> Edges:
    if not rows:
        raise InputError(f"{path} has no edges")
    for line, cells in rows:
        if len(cells) != 3:
            raise InputError(f"{path}, line {line}: {len(cells)} cells, expected from,to,cost")
    columns = ["3"]
    number = np.concatenate([parse_numbers(cells[2:], columns, path, line) for line, cells in rows])
    bad = ~(np.isfinite(number) & (number >= 0))
    if bad.any():
        line, cells = rows[int(bad.argmax())]
        raise InputError(f"{path}, line {line}, column 3: {cells[2]!r}, expected a finite number >= 0")
    known: dict[tuple[str, str], float] = {}
    for (line, (source, target, _)), value in zip(rows, number.tolist(), strict=True):
        if known.setdefault((source, target), value) != value:  # the same again is harmless; PEMS08's file has such
            raise InputError(
                f"{path}, line {line}: edge {source},{target} is {value:g} here and {known[source, target]:g} before"
            )
    return Edges(path, [cells[0] for _, cells in rows], [cells[1] for _, cells in rows], number)
