"""Files and folders that are written whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stlora_kernels.errors import InputError


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn the refusal of a folder or file that the block makes into an ``InputError`` that names ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):  # the disk's doing
            raise
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place if the block succeeds and is removed if it does not.

    Raises:
        InputError: if no file can be made there.
    """
    temporary = _beside(path)
    with writing_to(path.parent):
        temporary.touch()
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:  # after Ctrl-C and on a full disk too
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its name if the block succeeds and is removed if it does not.

    Raises:
        InputError: if there is something of that name already, or no folder that it can be made in.
    """
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another name or remove it")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder.absolute().parent} is no folder, so {folder.name} cannot be made in it")
    temporary = _beside(folder.absolute())
    try:
        with writing_to(temporary.parent):
            temporary.mkdir()
        yield temporary
        temporary.rename(folder)
    finally:  # after Ctrl-C and on a full disk too
        shutil.rmtree(temporary, ignore_errors=True)


def reserve(path: Path) -> None:
    """Take the room of a file on the disk, holes included: to write into one through a memory map of it, where the
    disk is full, ends the process with SIGBUS.

    Raises:
        OSError: if the disk has not as much room.
    """
    size = path.stat().st_size
    try:
        if hasattr(os, "posix_fallocate"):
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:  # macOS and Windows
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, {size:,} bytes are needed", str(path)) from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
