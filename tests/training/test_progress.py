"""A bar where someone watches, lines where a log is kept."""

import io
import sys

import pytest

from stlora_kernels.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "bar"),
    [(Terminal, None, True), (Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)],
    ids=["terminal", "terminal-not-quiet", "terminal-quiet", "log"],
)
def test_batches_are_handed_on_under_a_bar_or_silently(stream, quiet, bar, monkeypatch):
    monkeypatch.setattr("sys.stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(quiet)
    assert list(progress.batches(iter("abc"), 3, "epoch 1/9")) == list("abc")
    assert ("epoch 1/9" in sys.stderr.getvalue()) is bar
    progress.say("epoch 1/9 done")
    assert sys.stderr.getvalue().endswith("epoch 1/9 done\n")
