"""Runs the cells of a grid, each as a process of its own, so that none can harm another and every core has work."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from stlora_kernels.reproduce.grid import Cell
from stlora_kernels.training.run_folder import METRICS

TRAIN = (sys.executable, "-m", "stlora_kernels.train")
POLL = 0.1  # seconds between two looks at the running processes
GRACE = 30.0  # seconds that a stopped run has to keep what it has


@dataclass
class Ended:
    """How the running of a grid came to its end."""

    failed: dict[str, str] = field(default_factory=dict)  # cell: the last line of its stderr
    stopped: str = ""  # what ended it before all cells were done


@dataclass(frozen=True)
class Work:
    """A cell that is running."""

    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    said_before: int  # bytes of the log, of earlier attempts
    started: float


class Runner:
    """Runs cells below ``output``: ``runs/<cell>`` and ``logs/<cell>.log``.

    Args:
        jobs: processes at a time; each has its share of the cores.
        minutes: after these no cell is begun, and the running ones are interrupted and keep what ``--resume`` needs.
        say: gets a line about each cell.
    """

    def __init__(self, output: Path, jobs: int, minutes: float | None, say: Callable[[str], None]) -> None:
        self.output, self.jobs, self.say = output, jobs, say
        self.minutes = minutes
        self.running: list[Work] = []
        self.ended = Ended()

    def run(self, cells: Sequence[Cell]) -> Ended:
        """Run them in this order; a failing one does not keep the others from running."""
        waiting, total = deque(cells), len(cells)
        end = None if self.minutes is None else time.monotonic() + 60 * self.minutes
        try:
            with _termination_as_interrupt():
                while waiting or self.running:
                    if end is not None and time.monotonic() >= end:
                        self.ended.stopped = f"the budget of {self.minutes:g} minutes is spent"
                        break
                    while waiting and len(self.running) < self.jobs:
                        self._start(waiting.popleft(), f"[{total - len(waiting)}/{total}]")
                    time.sleep(POLL)
                    self._look()
        except KeyboardInterrupt:
            self.ended.stopped = "stopped"
        finally:
            self._stop()
        return self.ended

    def _start(self, cell: Cell, number: str) -> None:
        folder, log = self.output / "runs" / cell.name, self.output / "logs" / f"{cell.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # A run that was killed before it kept anything to go on from has to begin anew.
        how = "--resume" if any(folder.glob("*last*.safetensors")) else "--overwrite"
        command = [*TRAIN, *cell.arguments(), "--output", str(folder), how]
        with log.open("ab") as stderr:
            said_before = stderr.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": str(threads(self.jobs))},
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops each one once
            )
        self.running.append(Work(cell, process, log, said_before, time.monotonic()))
        self.say(f"{number} {cell.name}{': goes on' if how == '--resume' else ''}")

    def _look(self) -> None:
        """Take leave of those that have ended."""
        for work in [work for work in self.running if work.process.poll() is not None]:
            self.running.remove(work)
            minutes = (time.monotonic() - work.started) / 60
            if work.process.returncode == 0 and (self.output / "runs" / work.cell.name / METRICS).is_file():
                self.say(f"{work.cell.name}: done in {minutes:.1f} min")
            else:
                self.ended.failed[work.cell.name] = reason = _reason(work)
                self.say(f"{work.cell.name}: failed after {minutes:.1f} min: {reason} (all of it: {work.log})")

    def _stop(self) -> None:
        """Interrupt what is running, as Ctrl-C would; what does not end by itself is killed."""
        self._look()
        for work in self.running:
            work.process.send_signal(signal.SIGINT)
        end = time.monotonic() + GRACE
        try:
            for work in self.running:
                work.process.wait(max(0.0, end - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass  # a second Ctrl-C does not wait
        finally:
            for work in self.running:
                work.process.kill()
                if work.process.wait():
                    self.say(f"{work.cell.name}: interrupted; the same command goes on with it")
                else:
                    self.say(f"{work.cell.name}: done")
            self.running.clear()


def threads(jobs: int) -> int:
    """Of each process; fewer where the environment says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // jobs)
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(said)) if said.isdigit() and int(said) else share


def _reason(work: Work) -> str:
    said = work.log.read_bytes()[work.said_before :].decode(errors="replace")
    lines = [line.strip() for line in said.splitlines()]
    last = next(filter(None, reversed(lines)), "nothing was said").removeprefix("error: ")
    code = work.process.returncode
    return last if code >= 0 else f"killed by signal {-code} after: {last}"


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Within the block, SIGTERM (of a batch system, of ``timeout``) is a Ctrl-C: no process is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to that alone
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
