"""A Ctrl-C that Python dropped stops the training all the same."""

import signal
import threading

import pytest

from stlora_kernels.training.interrupt import remembered_interrupts


def _dropped() -> None:
    """As a finaliser drops what is raised in it."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_dropped_interrupt_is_raised_again():
    before = signal.getsignal(signal.SIGINT)
    with remembered_interrupts() as check:
        check()
        _dropped()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_leaves_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def train() -> None:
        with remembered_interrupts() as check:
            check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before]
