"""Adjacency matrices: from distances, places or measurements, binary, and the checks every one has to pass."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stlora_kernels.data.missing import is_measured
from stlora_kernels.errors import InputError, require

logger = logging.getLogger(__name__)

# Neighbours of a sensor where a graph is made without roads: about as many as METR-LA's roads give (1515 edges / 207).
NEIGHBOURS = 8

# How many products a correlation may take, a few seconds of one core: all of a year of 5-minute steps of 900 sensors,
# 1352 steps of 8600 sensors.
CORRELATION_PRODUCTS = 10**11


def gaussian_kernel(distances: np.ndarray, threshold: float = 0.1) -> np.ndarray:
    """Weights of a directed graph from pairwise distances, as in DCRNN (Li et al., 2018).

    ``W[i, j] = exp(-(d[i, j] / std)^2)``, and 0 where that is below ``threshold``; ``std`` is the
    standard deviation of all finite distances.

    Args:
        distances: ``[N, N]``, from row to column, in any unit of length; ``inf`` where there is no road.
        threshold: smallest weight kept.

    Returns:
        ``[N, N]`` float32.

    Raises:
        InputError: if no distance is finite, all are equal, or one is negative or NaN.
    """
    distances = np.asarray(distances, dtype=np.float64)
    if np.isnan(distances).any() or (distances < 0).any():
        raise InputError("distances must not be negative or NaN")
    known = distances[np.isfinite(distances)]
    std = known.std() if known.size else 0.0
    if std == 0:
        raise InputError("the Gaussian kernel needs distances that differ; their standard deviation is 0")
    weights = np.exp(-np.square(distances / std))  # exp(-inf) = 0: no road, no edge
    return np.where(weights < threshold, 0, weights).astype(np.float32)


def binary_symmetric(connected: np.ndarray) -> np.ndarray:
    """The undirected 0/1 graph without self-loops that PEMS03, 04, 07 and 08 are used with.

    ``A[i, j] = 1`` if i and j differ and ``connected`` holds in either direction, ``[N, N]`` float32.
    """
    edges = connected.astype(bool)
    edges = edges | edges.T
    np.fill_diagonal(edges, False)
    return edges.astype(np.float32)


def nearest_neighbours(places: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """The undirected 0/1 graph that joins every sensor to the ``k`` nearest ones, by great circle.

    ``A[i, j] = 1`` if j is one of the k sensors nearest to i, or i one of j's; so some have more than k neighbours.

    Args:
        places: ``[N, 2]``, latitude and longitude in degrees.
        k: neighbours of each sensor; all others, if there are no more.

    Returns:
        ``[N, N]`` float32, without self-loops.

    Raises:
        InputError: if a place is not on Earth or k is not positive.
    """
    places = np.asarray(places, dtype=np.float64)
    off = ~(np.abs(places) <= (90, 180)).all(axis=1)
    if off.any():
        place = places[off.argmax()].tolist()
        raise InputError(f"places: got {place}, expected latitudes in [-90, 90] and longitudes in [-180, 180]")
    _check_neighbours(k)
    latitude, longitude = np.radians(places).T
    # In space, where the chord between two places grows with the arc: no seam at the date line, none at the poles.
    x, y, z = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    points = np.stack([x, y, z], axis=1)  # [N, 3]
    found = np.arange(1, min(k + 1, len(points)) + 1)  # k, and itself
    _, nearest = require("scipy.spatial", "train").KDTree(points).query(points, k=found)  # [N, k + 1]
    sensors = np.broadcast_to(np.arange(len(points))[:, None], nearest.shape)
    others = nearest != sensors
    others[others.all(axis=1), -1] = False  # where more than k share its place, it need not be among those found
    connected = np.zeros((len(points), len(points)), dtype=bool)
    connected[sensors[others], nearest[others]] = True
    return binary_symmetric(connected)


def correlation_graph(values: np.ndarray, null_value: float | None = None, k: int = NEIGHBOURS) -> np.ndarray:
    """The undirected graph that joins every sensor to the ``k`` whose measurements go most with its own.

    ``r[i, j] = sum_t z_i z_j / sqrt(sum_t z_i^2  sum_t z_j^2)``, Pearson's correlation, where ``z`` is the deviation
    from the sensor's mean, and 0 where nothing was measured: sensors that seldom measure together weigh little.
    ``A[i, j] = r[i, j]`` if that is positive and among the k largest of i or of j.

    Give it the training part alone: a graph that knows the test part is a leak. Where there are more than
    ``1e11 / N^2`` steps, that many are drawn, always the same ones.

    Args:
        values: ``[S, N]``; NaN and infinite values are no measurements.
        null_value: another value that is none.
        k: neighbours of each sensor; all others, if there are no more.

    Returns:
        ``[N, N]`` float32, without self-loops.

    Raises:
        InputError: if k is not positive.
    """
    _check_neighbours(k)
    steps, nodes = values.shape
    most = max(2, CORRELATION_PRODUCTS // nodes**2)
    if steps > most:  # at random, since even spaces would meet the same hours of every day
        values = values[np.sort(np.random.default_rng(0).choice(steps, most, replace=False))]
        logger.warning("correlation of %d sensors: from %d of %d steps, drawn at random", nodes, most, steps)
    measured = is_measured(values, null_value)
    z = np.where(measured, values, 0).astype(np.float32)  # [S, N]
    mean = z.sum(axis=0, dtype=np.float64) / np.maximum(measured.sum(axis=0), 1)
    np.subtract(z, mean.astype(np.float32), out=z, where=measured)
    norm = np.sqrt(np.einsum("sn,sn->n", z, z))
    z /= np.where(norm > 0, norm, 1)
    graph = np.zeros((nodes, nodes), dtype=np.float32)
    count = max(1, min(k, nodes - 1))
    for start in range(0, nodes, 512):
        r = z[:, start : start + 512].T @ z  # [512, N]
        rows = np.arange(len(r))[:, None]
        r[rows, start + rows] = 0
        best = np.argpartition(r, -count, axis=1)[:, -count:]  # [512, k]
        graph[start + rows, best] = r[rows, best].clip(0, 1)
    return np.maximum(graph, graph.T)


def _check_neighbours(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1 neighbour")


def check_adjacency(adjacency: np.ndarray, num_nodes: int, name: str) -> None:
    """Refuse a matrix that is not a float32 graph of ``num_nodes`` nodes; ``name`` opens the message.

    Raises:
        InputError: if it is not square, of another size, not finite, or has a negative weight.
    """
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise InputError(f"{name}: the adjacency is {list(adjacency.shape)}, expected a square matrix")
    if adjacency.shape[0] != num_nodes:
        raise InputError(f"{name}: the graph has {adjacency.shape[0]} nodes, the data {num_nodes} sensors")
    if adjacency.dtype != np.float32:
        raise InputError(f"{name}: the adjacency is {adjacency.dtype}, expected float32")
    wrong = ~np.isfinite(adjacency) | (adjacency < 0)
    if wrong.any():
        row, column = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
        raise InputError(
            f"{name}: adjacency[{row}, {column}] is {adjacency[row, column]}, expected a finite weight >= 0"
        )


def check_unique(sensors: Sequence[str], name: str) -> None:
    """Refuse ids of which two are the same; ``name`` opens the message.

    Raises:
        InputError: naming the first such id.
    """
    if len(set(sensors)) < len(sensors):
        twice = next(sensor for sensor in sensors if sensors.count(sensor) > 1)
        raise InputError(f"{name}: two sensors have the id {twice!r}, expected one id per sensor")


def select_sensors(matrix: np.ndarray, ids: tuple[str, ...], sensor_ids: tuple[str, ...], path: Path) -> np.ndarray:
    """Rows and columns of the sensors ``sensor_ids``, in their order, of a matrix over ``ids``.

    Raises:
        InputError: if a sensor is not in the graph, or twice, or the matrix does not fit its ids.
    """
    if matrix.shape != (len(ids), len(ids)):
        raise InputError(f"{path}: the matrix is {list(matrix.shape)} for {len(ids)} sensor ids")
    check_unique(ids, f"{path}")
    index = {sensor: i for i, sensor in enumerate(ids)}
    absent = [sensor for sensor in sensor_ids if sensor not in index]
    if absent:
        raise InputError(
            f"{path}: the graph of {len(ids)} sensors lacks {len(absent)} of the data's {len(sensor_ids)}: "
            f"{first_few(absent)}"
        )
    order = [index[sensor] for sensor in sensor_ids]
    return matrix[np.ix_(order, order)]


def first_few(sensors: Sequence[str]) -> str:
    """The first sensors of a list that may be too long for a message."""
    return ", ".join(sensors[:3]) + (", ..." if len(sensors) > 3 else "")
