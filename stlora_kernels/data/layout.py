"""Files into the folders they are read from, ``FOLDER/NAME/file``: checked first, whole or not at all."""

import csv
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from stlora_kernels.data.fingerprint import Finding, check_file
from stlora_kernels.data.readers.files import csv_rows, is_number, reading
from stlora_kernels.data.registry import DatasetInfo
from stlora_kernels.errors import InputError
from stlora_kernels.files import replacing, writing_to

Convert = Callable[[DatasetInfo, Path, Path], None]


def install(info: DatasetInfo, file: str, source: Path, folder: Path, *, downloaded: bool = False) -> Finding:
    """Bring ``source`` into place as ``folder/NAME/file``, in the form that ``load_dataset`` reads.

    Args:
        downloaded: ``source`` need not stay, and has to be of the full set, not of a part.

    Raises:
        InputError: if it is not that file, or ``folder`` cannot be written to; what is in place stays as it is.
    """
    target = folder / info.name / file
    convert = conversion(info, file, source)
    if convert is None and target.exists() and target.samefile(source):
        return check_file(info, file, target)
    with writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        if convert is not None:
            convert(info, source, temporary)
        elif downloaded:
            source.replace(temporary)
        else:
            shutil.copyfile(source, temporary)
        finding = check_file(info, file, temporary)
        if downloaded and finding.is_part:
            raise InputError(f"{source}: {finding.text}")
    return finding


def conversion(info: DatasetInfo, file: str, source: Path) -> Convert | None:
    """How to turn ``source`` into the form the set is read in; None: it has that form."""
    if file in info.values_files and file.endswith(".csv") and _has_no_times(source):
        return _add_times
    if file.endswith(".npy") and zipfile.is_zipfile(source):
        return _fill_matrix
    return None


def extract(archive: Path, member: str, target: Path) -> None:
    """Write the one file named ``member`` of a zip archive to ``target``; its path in the archive has no say.

    Raises:
        InputError: if the archive is broken, does not have exactly one such file, or it would not fit on the disk.
    """
    with reading(archive, "a zip archive"), zipfile.ZipFile(archive) as zipped:
        named = [item for item in zipped.infolist() if _base_name(item) == member.lower()]
        if len(named) != 1:
            raise InputError(f"{archive} has {len(named)} files named {member}, expected one")
        if named[0].file_size > shutil.disk_usage(target.parent).free:
            raise InputError(
                f"{member} in {archive} has {named[0].file_size} bytes, more than is free at {target.parent}"
            )
        with zipped.open(named[0]) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)


def members(archive: Path) -> Iterator[str]:
    """Base names, in lower case, of the files in a zip archive.

    Raises:
        InputError: if the archive is broken.
    """
    with reading(archive, "a zip archive"), zipfile.ZipFile(archive) as zipped:
        yield from [_base_name(item) for item in zipped.infolist()]


def _base_name(item: zipfile.ZipInfo) -> str:
    return "" if item.is_dir() else PurePosixPath(item.filename.replace("\\", "/")).name.lower()


def _has_no_times(path: Path) -> bool:
    """T-GCN publishes Shenzhen's speeds as a bare table: a header of road ids, then numbers."""
    with reading(path, "a csv of measurements"):
        rows = csv_rows(path)
        next(rows, None)
        _, first = next(rows, (0, [""]))
    return is_number(first[0])


def _add_times(info: DatasetInfo, source: Path, target: Path) -> None:
    """Write the times of the set's calendar as the first column; only a full set has that calendar."""
    with reading(source, "a csv of measurements"):
        rows = [cells for _, cells in csv_rows(source)]
    if (len(rows) - 1, len(rows[0])) != (info.num_steps, info.num_nodes):
        raise InputError(
            f"{source} has {len(rows) - 1} rows of {len(rows[0])} columns and no times, "
            f"{info.name} has {info.num_steps} steps of {info.num_nodes} sensors"
        )
    step = np.timedelta64(info.step_minutes, "m")
    times = np.datetime64(info.first_step, "s") + np.arange(info.num_steps) * step  # [S]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time", *rows[0]])
        for time, cells in zip(times, rows[1:], strict=True):
            writer.writerow([str(time).replace("T", " "), *cells])


def _fill_matrix(info: DatasetInfo, source: Path, target: Path) -> None:
    """tsl's copy of LargeST holds edges as ``.npz`` of [2, E] and [E], the authors' a matrix with ones as diagonal."""
    with reading(source, "an .npz of edges"), np.load(source, allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files]
        ends, weights = arrays if len(arrays) == 2 else (np.empty(0), np.empty(0))
        if ends.shape != (2, *weights.shape) or not ((ends >= 0) & (ends < info.num_nodes)).all():
            raise InputError(
                f"{source}: expected two arrays, ends [2, E] between the {info.num_nodes} sensors of {info.name} and "
                f"weights [E], got {', '.join(str(list(array.shape)) for array in arrays)}"
            )
        matrix = np.eye(info.num_nodes, dtype=np.float32)
        matrix[ends[0], ends[1]] = weights
    with target.open("wb") as file:
        np.save(file, matrix)
