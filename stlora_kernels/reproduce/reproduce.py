"""From the options of ``reproduce`` to finished runs, tables and pictures."""

import datetime
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stlora_kernels.errors import InputError, require
from stlora_kernels.files import replacing
from stlora_kernels.reproduce.document import document, runs_csv, state, table_csv
from stlora_kernels.reproduce.figures import EXTRA, save_figure
from stlora_kernels.reproduce.grid import Cell, cells_of, in_order, missing_data
from stlora_kernels.reproduce.options import ReproduceOptions
from stlora_kernels.reproduce.results import GridResults, collect
from stlora_kernels.reproduce.runner import Ended, Runner, threads


def reproduce(options: ReproduceOptions, train_args: tuple[str, ...] = ()) -> None:
    """Run what is not done yet, then print and write every table of what is done.

    Args:
        train_args: options of ``python -m stlora_kernels.train`` for every run.

    Raises:
        InputError: before anything is run, for options or an output folder that cannot be used, and if there is no
            data to run on.
        MissingExtraError: if what the tables and pictures need is not installed.
        ChildProcessError: after the tables, if runs failed.
        KeyboardInterrupt: after the tables, on Ctrl-C.
    """
    for module, extra in (("scipy", "train"), ("filelock", "train"), ("matplotlib", EXTRA)):  # now, not after hours
        require(module, extra)
    grids = cells_of(options, train_args)
    with _alone(options.output):
        cells = in_order(grids.values())
        runs = options.output / "runs"
        done = collect(runs, cells)
        ended = _run([cell for cell in cells if cell.name not in done], options, bool(done))
        results = collect(runs, cells)
        for experiment, of_experiment in grids.items():
            _show(GridResults(experiment, of_experiment, results), ended, options.output)
    if ended.failed:
        name, reason = next(iter(ended.failed.items()))
        more = f" (and {len(ended.failed) - 1} more)" if len(ended.failed) > 1 else ""
        raise ChildProcessError(f"{len(ended.failed)} of {len(cells)} runs failed: {name}: {reason}{more}")
    if ended.stopped == "stopped":
        raise KeyboardInterrupt("what is done is kept; the same command goes on")


def _run(todo: list[Cell], options: ReproduceOptions, any_done: bool) -> Ended:
    missing = {} if options.budget == 0 else missing_data(todo)  # to show what is done needs no data
    here = [cell for cell in todo if cell.config.dataset not in missing]
    if missing and not here and not any_done:
        raise next(iter(missing.values()))
    if here and options.budget != 0:
        share = threads(options.jobs)
        _say(f"{len(here)} runs to do, {options.jobs} at a time with {share} thread(s) each, into {options.output}")
    ended = Runner(options.output, options.jobs, options.budget, _say).run(here)
    ended.failed |= {cell.name: str(missing[cell.config.dataset]) for cell in todo if cell.config.dataset in missing}
    return ended


def _show(grid: GridResults, ended: Ended, output: Path) -> None:
    if ended.stopped:
        _say(f"{grid.experiment}: {ended.stopped}; {state(grid)}")
    if not grid.done:
        _say(f"{grid.experiment}: no run is done yet, there is nothing to show")
        return
    text = document(grid, ended.failed, datetime.date.today())
    for name, content in ((".md", text), (".csv", table_csv(grid)), ("-runs.csv", runs_csv(grid))):
        with replacing(output / f"{grid.experiment}{name}") as temporary:
            temporary.write_text(content, encoding="utf-8")
    drawn = save_figure(grid, output / f"{grid.experiment}.png")
    print(text)
    names = ".md, .csv, -runs.csv" + (", .png" if drawn else "")
    print(f"Written: {output / grid.experiment}{names}", flush=True)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """The output folder, which no other process of this command uses at the same time.

    Raises:
        InputError: if one does, or the folder cannot be made or written to.
    """
    filelock = require("filelock", "train")
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(output / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"--output: {output} is in use by another reproduce; choose another or wait for it") from None
    except OSError as error:
        raise InputError(f"--output: got {output}, expected a folder to write to: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
