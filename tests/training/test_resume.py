"""A training that was stopped anywhere and went on is, to the bit, the one that was never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stlora_kernels.errors import InputError
from stlora_kernels.train import main as train_main
from stlora_kernels.training import checkpoint
from stlora_kernels.training.checkpoint import load_checkpoint, read_tensors
from stlora_kernels.training.cli import run
from stlora_kernels.training.config import AdapterConfig
from stlora_kernels.training.experiment import train
from stlora_kernels.training.resume import LAST, PREVIOUS
from stlora_kernels.training.trainer import Trainer


class StoppedError(Exception):
    """The plug was pulled."""


@pytest.fixture
def pull_the_plug(monkeypatch):
    """A function: before the n-th batch from now on nothing happens any more."""
    real = Trainer.step
    left = []

    def step(self, *arguments):
        if left:
            left[0] -= 1
            if left[0] < 0:
                raise StoppedError
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "step", step)

    def pull(batches):
        left[:] = [] if batches is None else [batches]

    return pull


def result(folder):
    """All that a run leaves but its times and its own name."""
    metrics = json.loads((folder / "metrics.json").read_text())
    epochs = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in metrics["epochs"]]
    tensors, about = read_tensors(folder / LAST)
    position = {name: about[name] for name in ("generators", "learning_rate", "steps", "counted", "best")}
    return metrics["test"], epochs, position, tensors, load_checkpoint(folder)[0]


def assert_same(one, other):
    *values, last, best = result(one)
    *expected, expected_last, expected_best = result(other)
    assert values == expected
    for tensors, wanted in ((last, expected_last), (best, expected_best)):
        assert tensors.keys() == wanted.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, wanted[name]), name


def stopped_beside_a_whole_one(tiny, pull_the_plug):
    """Two runs of the same: one that stopped after five batches, with a state of each, and one that did not."""
    config = replace(tiny, epochs=3, save_minutes=0.0, batch_size=32)
    whole = replace(config, output=tiny.output.with_name("whole"))
    train(whole)
    pull_the_plug(5)
    with pytest.raises(StoppedError):
        train(config)
    return config, whole


CASES = {
    "plain": {"stlora": False},
    "dropout": {"adapter": AdapterConfig(layers=1, rank=2, hidden=8, dropout=0.5)},
    "average": {"ema": 0.9},
    "decay": {"milestones": (1, 2), "gamma": 0.5},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "step_size": 1},
    "curriculum": {"curriculum": 1, "warmup": 1, "horizon": 3},
    "pieces": {"accumulate": 3},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_stopped_training_goes_on_to_the_same_bits(changes, tiny, pull_the_plug):
    config = replace(tiny, epochs=3, save_minutes=0.0, batch_size=32, **changes)
    whole = replace(config, output=tiny.output.with_name("whole"))
    train(whole)
    draw = random.Random(0)
    for stop in (0, 1, draw.randrange(2, 6), draw.randrange(2, 6), None):  # each time a few batches further
        pull_the_plug(stop)
        if stop is None:
            train(config, resume=True)
        else:
            with pytest.raises(StoppedError):
                train(config, resume=True)
    assert_same(tiny.output, whole.output)


def test_between_two_savings_batches_are_done_again_to_the_same_bits(tiny, pull_the_plug):
    config = replace(tiny, epochs=3, batch_size=32)  # saved after every epoch only
    whole = replace(config, output=tiny.output.with_name("whole"))
    per_epoch = train(whole).data.train.num_batches(32)
    pull_the_plug(2 * per_epoch - 2)
    with pytest.raises(StoppedError):
        train(config)
    state = read_tensors(tiny.output / LAST)[1]
    assert (len(state["history"]), state["position"]["batches"]) == (1, 0)
    pull_the_plug(None)
    train(config, resume=True)
    assert_same(tiny.output, whole.output)


def test_a_finished_run_can_be_given_more_epochs(tiny):
    train(replace(tiny, epochs=1))
    train(replace(tiny, epochs=3), resume=True)
    train(replace(tiny, epochs=3, output=tiny.output.with_name("whole")))
    assert_same(tiny.output, tiny.output.with_name("whole"))


def test_a_finished_run_stays_as_it_is(tiny, capsys):
    train(tiny)
    before = result(tiny.output)
    train(tiny, resume=True)
    assert "going on after epoch 2" in capsys.readouterr().err
    assert result(tiny.output)[:3] == before[:3]
    assert not (tiny.output / PREVIOUS).exists()


def test_where_there_is_nothing_a_run_begins(tiny):
    train(tiny, resume=True)
    train(replace(tiny, output=tiny.output.with_name("whole")))
    assert_same(tiny.output, tiny.output.with_name("whole"))


def test_a_run_that_was_killed_before_its_first_state_begins_anew(tiny):
    train(replace(tiny, epochs=1))
    for name in ("metrics.json", LAST):
        (tiny.output / name).unlink()
    with pytest.raises(InputError, match="unfinished run"):
        train(tiny, resume=True)  # of other epochs, so it may be anybody's
    train(replace(tiny, epochs=1), resume=True)
    assert (tiny.output / "metrics.json").exists()


def test_overwriting_leaves_nothing_to_go_on_with(tiny, pull_the_plug):
    train(tiny)
    pull_the_plug(0)
    with pytest.raises(StoppedError):
        train(tiny, overwrite=True)
    assert (tiny.output / LAST).exists()  # nothing was written, so nothing was replaced
    pull_the_plug(2)
    with pytest.raises(StoppedError):
        train(replace(tiny, seed=1, save_minutes=0.0), overwrite=True)
    names = {path.name for path in tiny.output.iterdir()}
    assert names == {"config.yaml", LAST, PREVIOUS}


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "bit":
        content[-5] ^= 1
    else:
        content = bytearray()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "bit", "empty"])
def test_a_broken_state_is_named_and_the_one_before_it_used(how, tiny, pull_the_plug, capsys):
    config, whole = stopped_beside_a_whole_one(tiny, pull_the_plug)
    damaged(tiny.output / LAST, how)
    pull_the_plug(None)
    train(config, resume=True)
    err = capsys.readouterr().err
    assert f"{tiny.output / LAST} is not a whole checkpoint" in err
    assert "going on from the state before it" in err
    assert_same(tiny.output, whole.output)


def test_two_broken_states_are_refused(tiny, pull_the_plug):
    pull_the_plug(4)
    with pytest.raises(StoppedError):
        train(replace(tiny, save_minutes=0.0))
    for name in (LAST, PREVIOUS):
        damaged(tiny.output / name, "bit")
    with pytest.raises(InputError, match=rf"--resume: .*{LAST}.*{PREVIOUS}.*--overwrite"):
        train(tiny, resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "--seed 0, this run 1"),
        ({"learning_rate": 0.5}, "--learning-rate 0.001, this run 0.5"),
        ({"adapter": AdapterConfig(layers=1, rank=3, hidden=8)}, "--adapter.rank 2, this run 3"),
        ({"backbone": "stgcn"}, "--backbone lstm, this run stgcn"),
    ],
)
def test_another_configuration_is_refused_by_name(changes, words, tiny):
    train(tiny)
    with pytest.raises(InputError) as refusal:
        train(replace(tiny, **changes), resume=True)
    assert words in str(refusal.value)


def test_other_data_are_refused(tiny, monkeypatch):
    train(tiny)
    about = read_tensors(tiny.output / LAST)
    about[1]["scaler"]["mean"] += 1
    checkpoint.write_tensors(tiny.output / LAST, *about)
    with pytest.raises(InputError, match="scaler"):
        train(tiny, resume=True)


def test_a_full_disk_leaves_the_last_good_state(tiny, monkeypatch, capsys, pull_the_plug):
    config, whole = stopped_beside_a_whole_one(tiny, pull_the_plug)
    pull_the_plug(None)
    before = {path.name: path.read_bytes() for path in tiny.output.iterdir()}
    real = Path.write_bytes

    def full(self, content):
        real(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        train(config, resume=True)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tiny.output.iterdir()} == before
    train(config, resume=True)
    assert_same(tiny.output, whole.output)


def test_resume_and_overwrite_exclude_each_other(tiny_options, capsys):
    assert run(train_main, [*tiny_options, "--resume", "--overwrite"]) == 2
    assert "--resume and --overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_is_the_same_training(tmp_path):
    options = [
        *("--stlora", "--synthetic.nodes=8", "--synthetic.steps=600", "--epochs=4", "--save-minutes=0"),
        *("--batch-size=16", "--adapter.layers=2", "--adapter.rank=2", "--adapter.hidden=8", "--resume"),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}

    def start(folder):
        command = [sys.executable, "-m", "stlora_kernels.train", *options, f"--output={folder}"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(600) == 0
    draw = random.Random(time.time_ns())  # any moment has to do
    kills = 0
    while True:
        child = start(tmp_path / "killed")
        while child.poll() is None and not (tmp_path / "killed").exists():
            time.sleep(0.05)
        try:
            code = child.wait(draw.uniform(0.2, 6) if kills < 6 else 600)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
            shutil.copytree(tmp_path / "killed", tmp_path / f"kill{kills}")  # what to look at if it fails
            continue
        assert code == 0
        break
    assert kills >= 1
    assert_same(tmp_path / "killed", tmp_path / "whole")
