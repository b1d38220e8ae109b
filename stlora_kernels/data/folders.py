"""Where data sets lie: ``FOLDER/NAME/file``, or ``FOLDER/file`` for files that somebody put there by hand."""

import os
from pathlib import Path

from stlora_kernels.data.registry import DatasetInfo


def chosen_folder(data_dir: str | Path | None) -> Path:
    """The data directory: ``data_dir``, or the environment variable ``STLORA_DATA``, or ``~/.cache/stlora``."""
    given = data_dir or os.environ.get("STLORA_DATA")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "stlora"


def places(info: DatasetInfo, folder: Path, *files: str) -> list[Path]:
    """Where ``files`` of a set are looked for, best first."""
    return [place / file for file in files for place in (folder / info.name, folder)]


def find_file(info: DatasetInfo, folder: Path, *files: str) -> Path | None:
    """The first of ``files`` that is there, in the set's own folder or beside it."""
    return next((place for place in places(info, folder, *files) if place.is_file()), None)
