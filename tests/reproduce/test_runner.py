"""Runs are started, kept, gone on with, interrupted and reported; a fake stands for the training."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from stlora_kernels.errors import InputError
from stlora_kernels.reproduce import runner
from stlora_kernels.reproduce.options import ReproduceOptions
from stlora_kernels.reproduce.reproduce import reproduce


@pytest.fixture
def options(tmp_path):
    """Two models, two seeds, on data that need no files."""

    def options(experiment="table2", **changes):
        changes = {"datasets": ("synthetic",), "backbones": ("lstm",), "seeds": 2} | changes
        return ReproduceOptions(experiment, output=tmp_path / "out", **changes)

    return options


@pytest.fixture
def calls(tmp_path):
    """The calls of the training so far."""

    def calls():
        file = tmp_path / "answers" / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return calls


def once(happened, seconds=20):
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_the_grid_is_run_shown_and_written(options, fake_training, calls, tmp_path, capsys):
    cells = fake_training(options())
    reproduce(options())
    assert [call["name"] for call in calls()] == [cell.name for cell in cells]
    first = calls()[0]["arguments"]
    assert first == [*cells[0].arguments(), "--output", str(tmp_path / "out" / "runs" / cells[0].name), "--overwrite"]
    out, err = capsys.readouterr()
    assert "**complete: 4 runs**" in out
    assert "-1.050" in out
    assert "4 runs to do, 1 at a time" in err
    files = {file.name for file in (tmp_path / "out").iterdir() if file.is_file()} - {".lock"}
    assert files == {"table2.md", "table2.csv", "table2-runs.csv", "table2.png"}
    assert (tmp_path / "out" / "table2.md").read_text() in out


def test_what_is_done_is_not_run_again(options, fake_training, calls, capsys):
    fake_training(options(seeds=3))
    reproduce(options())
    reproduce(options())
    assert len(calls()) == 4
    reproduce(options(seeds=3))
    assert len(calls()) == 6
    reproduce(options("figure4", seeds=3))  # which shows the same runs
    assert len(calls()) == 6
    assert "Figure 4" in capsys.readouterr().out


def test_all_experiments_share_runs_and_write_their_own_files(options, fake_training, calls, tmp_path):
    every = options("all", seeds=1, layers=(4,), ranks=(8, 16))
    fake_training(every)
    reproduce(every)
    assert len(calls()) == 3
    for experiment in every.experiments:
        assert (tmp_path / "out" / f"{experiment}.png").is_file()
        assert "complete: " in (tmp_path / "out" / f"{experiment}.md").read_text()


def test_a_failing_run_is_reported_and_the_others_go_on(options, fake_training, calls, capsys, tmp_path):
    fake_training(options(), how={"stlora-seed0": "fail"})
    with pytest.raises(ChildProcessError, match="1 of 4 runs failed: synthetic-lstm-stlora-seed0: the loss is nan"):
        reproduce(options())
    out, err = capsys.readouterr()
    assert len(calls()) == 4
    assert "**partial: 3 of 4 runs**" in out
    assert "Failed: synthetic-lstm-stlora-seed0: the loss is nan" in out
    assert "synthetic-lstm-stlora-seed0: failed after 0.0 min: the loss is nan" in err
    assert "of its beginning" in (tmp_path / "out" / "logs" / "synthetic-lstm-stlora-seed0.log").read_text()
    fake_training(options(), how={"stlora-seed0": "silent"})
    with pytest.raises(ChildProcessError, match="nothing was said"):
        reproduce(options())  # is tried again, and judged by what it says now
    assert len(calls()) == 5


@pytest.mark.parametrize(
    ("how", "words"), [("crash", "killed by signal 9 after: so far so good"), ("silent", "nothing was said")]
)
def test_a_run_that_ends_without_a_result_has_failed(options, fake_training, how, words):
    fake_training(options(seeds=1), how={"stlora": how})
    with pytest.raises(ChildProcessError, match=f"1 of 2 runs failed: .*: {words}"):
        reproduce(options(seeds=1))


def test_the_budget_interrupts_what_runs_and_begins_nothing_more(options, fake_training, calls, capsys, tmp_path):
    fake_training(options(), how={"stlora-seed0": "hang"})
    reproduce(options(budget=2 / 60))
    out, err = capsys.readouterr()
    assert len(calls()) == 2
    assert (tmp_path / "answers" / "synthetic-lstm-stlora-seed0.interrupted").exists()
    assert "**partial: 1 of 4 runs**" in out
    assert "the budget of 0.0333333 minutes is spent; partial: 1 of 4 runs" in err
    assert "Failed" not in out
    fake_training(options())
    reproduce(options())
    assert "**complete: 4 runs**" in capsys.readouterr().out
    assert calls()[2]["name"] == "synthetic-lstm-stlora-seed0"
    assert calls()[2]["arguments"][-1] == "--resume"
    assert calls()[3]["arguments"][-1] == "--overwrite"


def test_a_budget_of_zero_only_shows(options, fake_training, calls, capsys):
    fake_training(options())
    reproduce(options(budget=0.0))
    out, err = capsys.readouterr()
    assert calls() == []
    assert out == ""
    assert "no run is done yet" in err


def test_a_run_that_does_not_hear_is_killed(options, fake_training, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "GRACE", 0.3)
    fake_training(options(), how={"lstm-seed0": "deaf"})
    reproduce(options(budget=1.5 / 60))
    pid = int((tmp_path / "answers" / "synthetic-lstm-seed0.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupt_stops_the_runs_and_shows_what_is_done(number, options, fake_training, capsys, tmp_path):
    fake_training(options(), how={"stlora-seed0": "hang"})
    pid_file = tmp_path / "answers" / "synthetic-lstm-stlora-seed0.pid"

    def press():
        once(lambda: pid_file.exists() and pid_file.read_text())
        os.kill(os.getpid(), number)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        reproduce(options())
    presser.join()
    assert (tmp_path / "answers" / "synthetic-lstm-stlora-seed0.interrupted").exists()
    assert "**partial: 1 of 4 runs**" in capsys.readouterr().out


def test_jobs_run_at_the_same_time_and_share_the_cores(options, fake_training, calls, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    fake_training(options(), how={"seed": "hang"})
    reproduce(options(jobs=3, budget=2 / 60))
    assert len(list((tmp_path / "answers").glob("*.interrupted"))) == 3
    assert [call["env"]["OMP_NUM_THREADS"] for call in calls()] == ["2", "2", "2"]


@pytest.mark.parametrize(("jobs", "said", "threads"), [(1, None, 8), (16, None, 1), (2, "3", 3), (2, "6", 4)])
def test_threads_are_a_share_of_the_cores_and_no_more_than_the_environment_says(jobs, said, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", said or "")
    assert runner.threads(jobs) == threads


def test_runs_without_data_fail_without_being_begun(options, fake_training, calls, tmp_path):
    two = options(datasets=("METR-LA", "synthetic"), data=tmp_path, seeds=1)
    fake_training(two)
    with pytest.raises(ChildProcessError, match=r"2 of 4 runs failed: METR-LA-lstm-seed0: METR-LA: no metr-la.h5"):
        reproduce(two)
    assert len(calls()) == 2


def test_what_is_done_is_shown_without_its_data(options, fake_training, tmp_path, capsys):
    two = options(datasets=("METR-LA", "synthetic"), data=tmp_path, seeds=1)
    fake_training(two)
    with pytest.raises(ChildProcessError):
        reproduce(two)
    reproduce(options(datasets=("METR-LA", "synthetic"), data=tmp_path / "gone", seeds=1, budget=0.0))
    assert capsys.readouterr().out.count("**partial: 2 of 4 runs**") == 2


def test_without_any_data_nothing_is_run(options, fake_training, calls, tmp_path):
    alone = options(datasets=("METR-LA",), data=tmp_path)
    fake_training(alone)
    with pytest.raises(InputError, match=r"METR-LA: no metr-la.h5"):
        reproduce(alone)
    assert calls() == []


def test_one_folder_is_used_by_one_process(options, fake_training, tmp_path):
    fake_training(options())
    (tmp_path / "out").mkdir()
    holds = f"import filelock; lock = filelock.FileLock({str(tmp_path / 'out' / '.lock')!r}); lock.acquire(); "
    holds += "print(flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(InputError, match="in use by another reproduce"):
        reproduce(options())
    other.communicate(b"\n")
    reproduce(options())
