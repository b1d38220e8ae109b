"""PEMS03, 04, 07 and 08 as the field circulates them: an ``.npz`` with key ``data``."""

from pathlib import Path

import numpy as np

from stlora_kernels.data.readers.files import check_size, reading
from stlora_kernels.errors import InputError


def read_npz(path: Path) -> np.ndarray:
    """The array ``data`` of an ``.npz``, ``[S, N, C]`` float32; ``[S, N]`` is taken as one channel.

    Raises:
        InputError: if the file is broken, holds pickled objects, or has no such array of numbers.
    """
    # Opened here, since np.load leaves a broken file open.
    with reading(path, "an .npz file"), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile) or "data" not in archive:
            raise InputError(f"{path} has no array 'data', expected one of shape [steps, sensors, channels]")
        _check_header(archive, path)
        data = archive["data"]
    if data.dtype.kind not in "fiu" or data.ndim not in (2, 3):
        raise InputError(
            f"{path}: 'data' is {data.dtype} {list(data.shape)}, expected numbers [steps, sensors, channels]"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which SensorData reports
        return np.atleast_3d(data).astype(np.float32)


def _check_header(archive: np.lib.npyio.NpzFile, path: Path) -> None:
    """Refuse what its header says is too large for its file; numpy would make room for it first."""
    assert archive.zip is not None  # it is open
    with archive.zip.open("data.npy" if "data.npy" in archive.zip.namelist() else "data") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    check_size(shape, dtype, path, path.stat().st_size)
