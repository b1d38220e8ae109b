"""``prepare NAME``: what was downloaded or put there by hand, checked and brought into the folder training reads."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tyro.conf import Positional

from stlora_kernels.data.fingerprint import check_set
from stlora_kernels.data.folders import chosen_folder, how_to_get
from stlora_kernels.data.layout import conversion, extract, install, members
from stlora_kernels.data.mirrors import MIRRORS
from stlora_kernels.data.registry import DatasetInfo, find_dataset
from stlora_kernels.errors import MissingFileError
from stlora_kernels.files import writing_to


@dataclass(frozen=True)
class PrepareOptions:
    """Check the files of a data set against what is known of it, and bring them into the folder training reads.

    Files are known by their names, as the mirrors spell them, in folders and in zip archives. Nothing is deleted.
    """

    name: Positional[str]
    """such as PEMS08; see list"""
    source: Path | None = None
    """folder or zip archive in which the files are; by default the data directory and the set's folder in it"""
    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""


@dataclass(frozen=True)
class Candidate:
    """A file that by its name is one of the set; ``member``: its name in the archive ``path``."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.member} in {self.path}"


def run(options: PrepareOptions) -> None:
    """Find, check and install every file, then read the whole set.

    Raises:
        MissingFileError: if one is not there.
        InputError: if one is not what its name says, or the data directory cannot be written to.
    """
    info, folder = find_dataset(options.name), chosen_folder(options.data_dir)
    if options.source is not None and not options.source.exists():
        raise MissingFileError(f"--source: there is no file or folder {options.source}")
    wanted = [(file,) for file in (*info.values_files, *([info.ids_file] if info.ids_file else []))]
    found = [found for files in (*wanted, info.graph_files) if (found := _find(info, folder, options.source, files))]
    missing = [file for file in info.files if file not in {name for name, _ in found}]
    if info.years and any(name in info.values_files for name, _ in found):
        missing = [file for file in missing if file not in info.values_files]
    if any(name in info.graph_files for name, _ in found):
        missing = [file for file in missing if file not in info.graph_files]
    for file, candidate in found:
        print(f"{file}: {_install(info, file, candidate, folder)}")
    if missing:
        where = f"{folder / info.name}, {folder}" + (f" or {options.source}" if options.source else "")
        raise MissingFileError(f"{info.name}: no {', '.join(missing)} in {where}; {how_to_get(info, folder, *missing)}")
    report_set(info, folder)


def report_set(info: DatasetInfo, folder: Path) -> None:
    """Read the set as training will and print how it comes out."""
    for line in check_set(info, folder):
        print(f"{info.name}: {line}")
    print(f"{info.name} is ready: --dataset {info.name} --data-dir {folder}")


def _install(info: DatasetInfo, file: str, candidate: Candidate, folder: Path) -> str:
    target = folder / info.name / file
    with ExitStack() as stack:
        source = candidate.path
        if candidate.member is not None:
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                source = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))) / file
            extract(candidate.path, candidate.member, source)
        converted = conversion(info, file, source) is not None
        in_place = not converted and target.exists() and target.samefile(source)
        finding = install(info, file, source, folder)
    done = "in place" if in_place else f"{'converted' if converted else 'copied'} to {target}"
    return f"{finding.text}; found as {candidate}, {done}"


def _find(info: DatasetInfo, folder: Path, source: Path | None, files: tuple[str, ...]) -> tuple[str, Candidate] | None:
    """The first of ``files`` that is somewhere, under one of its names; a given source goes before what is in place."""
    for file in files:
        for place in (source, folder / info.name, folder):
            # Beside the sets' folders lie the files of several, and distance.csv could be anyone's.
            names = {file.lower()} if place == folder else _names(info, file)
            for candidate in _candidates(place, deep=place == source):
                if (candidate.member or candidate.path.name).lower() in names:
                    return file, candidate
    return None


def _names(info: DatasetInfo, file: str) -> set[str]:
    """How the mirrors call a file, in lower case."""
    mirrors = MIRRORS.get(info.name, {}).get(file, ())
    return {file.lower(), *((m.member or urlsplit(m.url).path.rpartition("/")[2]).lower() for m in mirrors)}


def _candidates(place: Path | None, *, deep: bool) -> Iterator[Candidate]:
    """Files in a folder, first those that are no archives, and files in its archives; or in one archive."""
    if place is None or not place.exists():
        return
    if place.is_dir():
        inside = sorted(path for path in (place.rglob("*") if deep else place.iterdir()) if path.is_file())
    else:
        inside = [place]
    yield from (Candidate(path) for path in inside)
    for archive in inside:
        if archive.suffix.lower() == ".zip":
            yield from (Candidate(archive, member) for member in members(archive) if member)
