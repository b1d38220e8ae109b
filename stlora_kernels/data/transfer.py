"""One file over HTTP, resumed where it broke off: the part of a download that ``pooch`` leaves to its caller."""

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stlora_kernels.errors import require

logger = logging.getLogger(__name__)

CHUNK = 1 << 16
LEAST_BYTES = 1024  # a server that sends fewer within ``timeout`` seconds counts as dead

Progress = Callable[[int, int | None], None]  # bytes so far, and in all if the server says


class TransferError(Exception):
    """This address does not give the file; another one may."""


class _BrokenOffError(Exception):
    """The transfer stopped half-way; what is there may be gone on with."""


@dataclass(frozen=True)
class ResumingDownloader:
    """A downloader for ``pooch.retrieve`` that keeps what has come when a transfer breaks, and goes on from there.

    The bytes so far are in ``partial``, and beside it, as JSON, what the server said of the file's version. A later
    call asks for the rest of that very version (``Range`` with ``If-Range``) and starts anew where the server has
    another one, does not serve ranges, or sends something else than that rest.

    Args:
        partial: file of the bytes so far.
        timeout: seconds to wait for a connection, and for 1 KB of the body.
        tries: connections per call; one that came further than any before it is not counted.
        pause: seconds before another try, twice as many each time that nothing came.
        progress: called as bytes arrive.
    """

    partial: Path
    timeout: float = 30.0
    tries: int = 3
    pause: float = 1.0
    progress: Progress | None = None

    def __call__(self, url: str, output_file: Any, pooch: Any = None, check_only: bool = False) -> None:
        """Download ``url`` to ``output_file``.

        Raises:
            TransferError: if the address does not give the file.
            OSError: if it cannot be written; the disk's room is looked at before.
        """
        requests = require("requests", "train")
        urllib3 = require("urllib3.exceptions", "train")
        broken = (
            *(requests.ConnectionError, requests.Timeout, urllib3.ProtocolError, urllib3.ReadTimeoutError),
            _BrokenOffError,
        )
        failures, furthest = 0, self._size()
        while True:
            try:
                with requests.Session() as session:
                    session.max_redirects = 10
                    self._fetch(session, url)
                break
            except broken as error:
                reason = _short(error)
                if isinstance(_cause(error), (urllib3.NewConnectionError, urllib3.ConnectTimeoutError)):
                    raise TransferError(reason) from error  # nobody there; another mirror is the better try
            except (requests.RequestException, urllib3.HTTPError) as error:  # a bad address, a loop of redirects
                raise TransferError(_short(error)) from error
            failures = 0 if self._size() >= furthest + LEAST_BYTES else failures + 1
            furthest = max(furthest, self._size())
            if failures == self.tries:
                raise TransferError(reason)
            logger.info("%s: %s; trying again from byte %d", url, reason, self._size())
            time.sleep(self.pause * 2**failures)
        os.replace(self.partial, output_file)
        self._about.unlink(missing_ok=True)

    @property
    def _about(self) -> Path:
        return self.partial.with_name(self.partial.name + ".json")

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _version(self) -> str | None:
        """What the server called the version that ``partial`` is the beginning of; None: not to be gone on with."""
        try:
            version = json.loads(self._about.read_text())["version"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return version if isinstance(version, str) else None

    def _fetch(self, session: Any, url: str) -> None:
        have = self._size()
        version = self._version() if have else None  # None: asked for the whole
        asked = have if version else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "stlora_kernels"}  # identity: the bytes as they are
        if version:
            headers |= {"Range": f"bytes={asked}-", "If-Range": version}
        with session.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            if response.status_code == 416:
                if asked and response.headers.get("Content-Range") == f"bytes */{asked}":  # nothing is missing
                    return
                self.partial.unlink(missing_ok=True)
                raise _BrokenOffError("the server has no such range")
            if response.status_code in (429, 500, 502, 503, 504):
                raise _BrokenOffError(f"HTTP status {response.status_code} {response.reason}")
            if response.status_code not in (200, 206):
                raise TransferError(f"HTTP status {response.status_code} {response.reason}")
            if response.status_code == 200:
                self._receive(response)
                return
            sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            as_asked = sent is not None and int(sent[1]) == asked
            if sent is None or not as_asked or (version and _version_of(response) != version):
                self.partial.unlink(missing_ok=True)
                raise _BrokenOffError(f"the server sent another {'version' if as_asked else 'range'} than asked for")
            self._receive(response, asked, int(sent[2]))

    def _receive(self, response: Any, start: int = 0, total: int | None = None) -> None:
        """Append the body to the first ``start`` bytes of a file of ``total``; None: as long as the body is."""
        length, full = response.headers.get("Content-Length", ""), total
        packed = "Content-Encoding" in response.headers  # against our wish; the length is not that of the file then
        if total is None and length.isdecimal() and not packed:
            total = int(length)
        free = shutil.disk_usage(self.partial.parent).free
        if total is not None and total - start > free:
            place = str(self.partial.parent)
            raise OSError(errno.ENOSPC, f"no space for {total - start:,} bytes, {free:,} are free", place)
        version = None if packed else _version_of(response)
        done, recent, pause_ends = start, 0, time.monotonic() + self.timeout
        with self.partial.open("ab" if start else "wb") as file:
            # Of what is in the file from now on; before, it would have been of the bytes of an older version.
            self._about.write_text(json.dumps({"url": response.url, "version": version}))
            while chunk := response.raw.read1(CHUNK, decode_content=True):  # raises where it ends too early
                file.write(chunk)
                done, recent = done + len(chunk), recent + len(chunk)
                if self.progress is not None:
                    self.progress(done, total)
                if time.monotonic() > pause_ends:
                    if recent < LEAST_BYTES:
                        raise _BrokenOffError(f"only {recent} bytes came in {self.timeout:g} seconds")
                    recent, pause_ends = 0, time.monotonic() + self.timeout
        if full not in (None, done):
            raise _BrokenOffError(f"it ended after {done:,} of {full:,} bytes")


def _version_of(response: Any) -> str | None:
    """What the server calls the version it sends, byte for byte; a weak ETag does not say that much."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _cause(error: BaseException) -> BaseException:
    """What urllib3 said first; requests and its pool of connections wrap it."""
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return _cause(inner) if isinstance(inner, BaseException) else error


def _short(error: Exception) -> str:
    """What went wrong, without the connection that urllib3 names first."""
    cause = _cause(error)
    words = " ".join(str(cause.args[0] if cause.args else cause).split())
    return re.sub(r"^.*(?:Connection|ConnectionPool)\(.*?\):? ?", "", words) or type(error).__name__
