"""What a run shows while it goes on, on stderr: a bar in a terminal, one line per epoch always."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from stlora_kernels.errors import require

T = TypeVar("T")


class Progress:
    """Progress on stderr.

    Args:
        quiet: no bar; None: no bar where stderr is not a terminal.
        silent: nothing at all, where another process speaks.
    """

    def __init__(self, quiet: bool | None = None, *, silent: bool = False) -> None:
        self.bar = not quiet and not silent and sys.stderr.isatty()
        self.silent = silent

    def batches(self, batches: Iterable[T], total: int, description: str) -> Iterator[T]:
        """Hand on the batches, counting them in a bar that vanishes when they are done."""
        if not self.bar:
            yield from batches
            return
        console = require("rich.console", "train").Console(stderr=True)
        track = require("rich.progress", "train").track
        yield from track(batches, description, total, transient=True, console=console)

    def say(self, line: str) -> None:
        """One line."""
        if not self.silent:
            print(line, file=sys.stderr, flush=True)
