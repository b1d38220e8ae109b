"""Where data sets lie: ``FOLDER/NAME/file``, or ``FOLDER/file`` for files that somebody put there by hand."""

import os
from pathlib import Path

from stlora_kernels.data.mirrors import MIRRORS
from stlora_kernels.data.registry import DatasetInfo
from stlora_kernels.errors import MissingFileError


def chosen_folder(data_dir: str | Path | None) -> Path:
    """The data directory: ``data_dir``, or the environment variable ``STLORA_DATA``, or ``~/.cache/stlora``."""
    given = data_dir or os.environ.get("STLORA_DATA")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "stlora"


def data_folder(data_dir: str | Path | None) -> Path:
    """``chosen_folder``, which has to be there.

    Raises:
        MissingFileError: if it is not.
    """
    folder = chosen_folder(data_dir)
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "is not there"
        raise MissingFileError(
            f"the data directory {folder.absolute()} {wrong}: give data_dir (--data-dir) or set STLORA_DATA"
        )
    return folder


def find_file(info: DatasetInfo, folder: Path, *files: str) -> Path | None:
    """The first of ``files`` that is there, in the set's own folder or beside it."""
    places = (place / file for file in files for place in (folder / info.name, folder))
    return next((place for place in places if place.is_file()), None)


def required_file(info: DatasetInfo, folder: Path, *files: str) -> Path:
    """``find_file``, which has to find one.

    Raises:
        MissingFileError: if none is there, saying where it was looked for and how to get it.
    """
    found = find_file(info, folder, *files)
    if found is not None:
        return found
    first = folder / info.name / files[0]
    looked = f"{first} and those beside it" if files[1:] else f"{first}"
    raise MissingFileError(
        f"{info.name}: no {' or '.join(files)}, looked for {looked}, also in {folder}; "
        f"{how_to_get(info, folder, files[0])}"
    )


def how_to_get(info: DatasetInfo, folder: Path, *files: str) -> str:
    """What to do about missing files, in half a sentence."""
    if not all(MIRRORS.get(info.name, {}).get(file) for file in files):
        return f"no address of it without a login is known; by hand: {info.source}"
    return f"get it by: python -m stlora_kernels.data download {info.name} --data-dir {folder} (by hand: {info.source})"
