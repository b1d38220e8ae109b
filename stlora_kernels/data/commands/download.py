"""``download NAME``: the files of a data set, from the first mirror that gives them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tyro.conf import Positional

from stlora_kernels.data.commands.prepare import report_set
from stlora_kernels.data.download import Downloader, DownloadError
from stlora_kernels.data.folders import chosen_folder
from stlora_kernels.data.registry import find_dataset
from stlora_kernels.errors import InputError, require


@dataclass(frozen=True)
class DownloadOptions:
    """Download a data set, check it, and put it where training finds it. The same command again goes on from there."""

    name: Positional[str]
    """such as PEMS08; see list"""
    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""
    files: tuple[str, ...] = ()
    """only these files of the set, such as one year of LargeST"""
    timeout: float = 30.0
    """seconds after which a silent server is given up"""


def run(options: DownloadOptions) -> None:
    """Download what is not there yet, then read the whole set."""
    info = find_dataset(options.name)
    for file in options.files:
        if file not in info.files:
            raise InputError(f"--files: {info.name} has no {file!r}, expected some of {', '.join(info.files)}")
    if not 0 < options.timeout < float("inf"):
        raise InputError(f"--timeout: got {options.timeout:g}, expected a number of seconds > 0")
    folder = chosen_folder(options.data_dir)
    with _Bar() as bar:
        downloader = Downloader(folder, say=bar.say, progress=bar.show, timeout=options.timeout)
        try:
            downloader.download(info, options.files or None)
        except DownloadError as error:
            bar.say(error.instructions)
            raise
    if not options.files:
        report_set(info, folder)


class _Bar:
    """Bytes as they come, in a bar on stderr where that is a terminal; lines about every step always."""

    def __init__(self) -> None:
        progress = require("rich.progress", "train")
        console = require("rich.console", "train").Console(stderr=True)
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
        more = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
        self.bar: Any = progress.Progress(
            *columns, *more, console=console, transient=True, disable=not sys.stderr.isatty()
        )
        self.task: Any = None
        self.file = ""

    def __enter__(self) -> "_Bar":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        self._end()
        print(line, file=sys.stderr, flush=True)

    def show(self, file: str, done: int, total: int | None) -> None:
        if self.task is None:
            self.task = self.bar.add_task(file, total=total)
        self.bar.update(self.task, completed=done, total=total)

    def _end(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
