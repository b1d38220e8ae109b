"""Downloads of the registered data sets: several mirrors per file, resumed, checked, in place whole or not at all."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stlora_kernels.data.fingerprint import check_file
from stlora_kernels.data.folders import find_file
from stlora_kernels.data.layout import extract, install
from stlora_kernels.data.mirrors import MIRRORS, Mirror, Mirrors
from stlora_kernels.data.registry import DatasetInfo
from stlora_kernels.data.transfer import ResumingDownloader, TransferError
from stlora_kernels.errors import InputError, MissingFileError, require

STAGE = ".download"  # in the set's folder: partial transfers, what has arrived, and the lock
ARRIVED = "arrived-"


class DownloadError(MissingFileError):
    """Files could not be had. ``instructions``, several lines, says which, why, and where to put them by hand."""

    def __init__(self, message: str, instructions: str) -> None:
        super().__init__(message)
        self.instructions = instructions


@dataclass(frozen=True)
class Downloader:
    """Downloads data sets into ``folder``.

    Args:
        folder: the data directory; files come to ``folder/NAME/file``.
        mirrors: addresses by set and file.
        say: called with a line about every step.
        progress: called with file, bytes so far and in all (None: unknown).
        timeout: seconds after which a silent server counts as dead.
        pause: seconds before a server is tried again; then twice as many each time.
    """

    folder: Path
    mirrors: dict[str, Mirrors] = field(default_factory=lambda: MIRRORS)
    say: Callable[[str], None] = logging.getLogger(__name__).info
    progress: Callable[[str, int, int | None], None] = lambda file, done, total: None
    timeout: float = 30.0
    pause: float = 1.0

    def download(self, info: DatasetInfo, files: tuple[str, ...] | None = None) -> None:
        """Download what is not there yet of a set, or of ``files`` of it.

        Files that are there are checked and kept. Where one cannot be had, the others are downloaded all the same.

        Raises:
            DownloadError: if no mirror gives one of the files.
            InputError: if a file that is there is not what it should be, or the folder cannot be written.
            KeyboardInterrupt: on Ctrl-C, saying that the same command goes on from there.
        """
        failed: dict[str, list[str]] = {}
        missing = []
        for file in files or info.files:
            there = find_file(info, self.folder, file)
            if there is None:
                missing.append(file)
            else:
                finding = check_file(info, file, there)
                self.say(f"{file}: is there already, {finding.text}")
                if finding.is_part:
                    self.say(f"{file}: to download the full set, move {there} away or name another --data-dir")
        if not missing:
            return
        stage = self._make_stage(info)
        filelock = require("filelock", "train")
        lock = filelock.FileLock(stage / "lock")
        try:
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                self.say(f"{info.name}: another process downloads it; waiting for that one")
                lock.acquire()
            for file in missing:
                if find_file(info, self.folder, file) is not None:
                    self.say(f"{file}: has come in the meantime")
                elif reasons := self._try_mirrors(info, file, stage):
                    failed[file] = reasons
            for left in stage.iterdir():
                if left.name != "lock" and not (failed and left.suffix in (".part", ".json")):  # to be gone on with
                    left.unlink()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what has come of {info.name} is kept; the same command goes on from there"
            ) from None
        except OSError as error:
            raise InputError(
                f"{info.name}: {error.filename or stage.parent}: {error.strerror or error}; "
                "--data-dir or STLORA_DATA names another folder"
            ) from error
        finally:
            lock.release()
        if failed:
            raise self._failure(info, failed)

    def _make_stage(self, info: DatasetInfo) -> Path:
        stage = self.folder / info.name / STAGE
        try:
            stage.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.folder}: {error.strerror}; --data-dir or STLORA_DATA names another folder"
            ) from error
        return stage

    def _try_mirrors(self, info: DatasetInfo, file: str, stage: Path) -> list[str]:
        """Why each mirror failed; nothing if one of them gave the file."""
        reasons = []
        for mirror in self.mirrors.get(info.name, {}).get(file, ()):
            address = mirror.url if mirror.member is None else f"{mirror.url} (as {mirror.member} in an archive)"
            self.say(f"{file}: from {address}")
            try:
                finding = self._from_mirror(info, file, mirror, stage)
            except (TransferError, InputError) as error:
                reasons.append(f"tried {address}: {error}")
                self.say(f"{file}: not from there: {error}")
            else:
                self.say(f"{file}: {finding}")
                return []
        return reasons or ["no address without a login is known"]

    def _from_mirror(self, info: DatasetInfo, file: str, mirror: Mirror, stage: Path) -> str:
        pooch = require("pooch", "train")
        pooch.get_logger().setLevel("WARNING")
        # Named by address: the halves of two copies are never put together, and an archive serves several files.
        name = hashlib.sha256(mirror.url.encode()).hexdigest()[:16]
        arrived, unpacked = stage / f"{ARRIVED}{name}", stage / "unpacked"
        get = ResumingDownloader(
            *(stage / f"{name}.part", self.timeout), pause=self.pause, progress=partial(self.progress, file)
        )
        try:
            pooch.retrieve(mirror.url, mirror.checksum, fname=arrived.name, path=stage, downloader=get)
        except ValueError as error:
            raise TransferError(f"what came has another checksum than {mirror.checksum}") from error
        try:
            if mirror.member is None:
                return install(info, file, arrived, self.folder, downloaded=True).text
            extract(arrived, mirror.member, unpacked)
            return install(info, file, unpacked, self.folder, downloaded=True).text
        except InputError:
            arrived.unlink(missing_ok=True)
            raise
        finally:
            unpacked.unlink(missing_ok=True)

    def _failure(self, info: DatasetInfo, failed: dict[str, list[str]]) -> DownloadError:
        place = self.folder / info.name
        lines = [f"{info.name}: these files could not be downloaded. Put them by hand into {place}:"]
        for file, reasons in failed.items():
            lines += [f"  {place / file}", *(f"    {reason}" for reason in reasons)]
        lines.append(f"  By hand: {info.source}.")
        lines.append(f"  Then: python -m stlora_kernels.data prepare {info.name} --data-dir {self.folder}")
        names = ", ".join(failed)
        return DownloadError(
            f"{info.name}: {len(failed)} of {len(info.files)} files could not be downloaded: {names}; "
            f"put them into {place} by hand, or try again later",
            "\n".join(lines),
        )
