"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stlora_kernels.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place if the block succeeds and is removed if it does not."""
    temporary = _beside(path)
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
        InputError: if there is something of that name already, or no folder to put it into.
    """
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another name or remove it")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder.absolute().parent} is no folder, so {folder.name} cannot be made in it")
    temporary = _beside(folder.absolute())
    try:
        temporary.mkdir()
        yield temporary
        temporary.rename(folder)
    finally:  # after Ctrl-C and on a full disk too
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
