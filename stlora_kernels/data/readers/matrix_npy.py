"""Adjacency matrices as ``.npy``, which is how LargeST comes (``ca_rn_adj.npy``)."""

from pathlib import Path

import numpy as np

from stlora_kernels.data.readers.files import reading
from stlora_kernels.errors import InputError


def read_matrix_npy(path: Path) -> np.ndarray:
    """The square matrix of numbers in an ``.npy``, ``[M, M]`` float32; it names no sensors.

    Raises:
        InputError: if the file is broken, holds pickled objects, or is no such matrix.
    """
    # As a memory map, which makes no room for what a header only claims.
    with reading(path, "an .npy file"):
        matrix = np.lib.format.open_memmap(path, mode="r")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "fiub":
            raise InputError(f"{path}: {matrix.dtype} {list(matrix.shape)}, expected a square matrix of numbers")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which SensorData reports
            return np.array(matrix, dtype=np.float32)
