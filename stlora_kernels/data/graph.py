"""Adjacency matrices: from road distances, binary, and the checks every one of them has to pass."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stlora_kernels.errors import InputError


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


def select_sensors(matrix: np.ndarray, ids: tuple[str, ...], sensor_ids: tuple[str, ...], path: Path) -> np.ndarray:
    """Rows and columns of the sensors ``sensor_ids``, in their order, of a matrix over ``ids``.

    Raises:
        InputError: if a sensor is not in the graph, or the matrix does not fit its ids.
    """
    if matrix.shape != (len(ids), len(ids)):
        raise InputError(f"{path}: the matrix is {list(matrix.shape)} for {len(ids)} sensor ids")
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
