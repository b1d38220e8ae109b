"""Arrays in ``.npy`` files: the adjacency of LargeST (``ca_rn_adj.npy``), and values to be mapped into memory."""

import math
from pathlib import Path

import numpy as np

from stlora_kernels.data.readers.files import reading
from stlora_kernels.errors import InputError


def read_matrix_npy(path: Path) -> np.ndarray:
    """The square matrix of numbers in an ``.npy``, ``[M, M]`` float32; it names no sensors.

    Raises:
        InputError: if the file is broken, holds pickled objects, or is no such matrix.
    """
    matrix = map_npy(path)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "fiub":
        raise InputError(f"{path}: {matrix.dtype} {list(matrix.shape)}, expected a square matrix of numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which SensorData reports
        return np.array(matrix, dtype=np.float32)


def map_npy(path: Path) -> np.memmap:
    """The array in an ``.npy``, mapped into memory for reading; nothing of it is read yet.

    Raises:
        InputError: if the file is broken or holds pickled objects.
    """
    with reading(path, "an .npy file"):
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            needed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if dtype.hasobject:
            raise InputError(f"{path} holds pickled objects, expected numbers")
        if needed != there:  # before numpy computes the size of the map, in 64 bits
            raise InputError(f"{path} is broken: {dtype} {list(shape)} are {needed} bytes, it holds {there}")
        return np.lib.format.open_memmap(path, mode="r")
