"""Several processes of ``torchrun`` train what one process trains."""

import json
import os
import subprocess
import sys

import pytest
import torch

from stlora_kernels.training.checkpoint import load_checkpoint
from stlora_kernels.training.resume import LAST

OPTIONS = [
    *("--stlora", "--synthetic.nodes=6", "--synthetic.steps=330", "--batch-size=31", "--gate-penalty=3"),
    *("--adapter.layers=2", "--adapter.rank=2", "--adapter.hidden=8", "--adapter.dropout=0", "--backbone-args"),
    *("dropout=0", "--learning-rate=0.003"),
]
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


def trained(folder, processes, *options):
    """A run in so many processes; what it printed."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"] if processes else []
    command = [sys.executable, *launcher, "-m", "stlora_kernels.train", *OPTIONS, *options, f"--output={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def assert_about_same(one, other, rtol=1e-4):
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (one, other))
    assert ours["best_epoch"] == theirs["best_epoch"]
    for mine, wanted in zip(ours["epochs"], theirs["epochs"], strict=True):
        assert mine["train_loss"] == pytest.approx(wanted["train_loss"], rel=rtol)
        assert mine["validation"]["pooled"]["targets"] == wanted["validation"]["pooled"]["targets"]
        assert mine["validation"]["pooled"]["mae"] == pytest.approx(wanted["validation"]["pooled"]["mae"], rel=rtol)
    (name,) = (model for model in ours["test"] if model.startswith("lstm"))
    for error in ("mae", "rmse", "mape"):
        assert ours["test"][name]["pooled"][error] == pytest.approx(theirs["test"][name]["pooled"][error], rel=rtol)
    tensors, expected = load_checkpoint(one)[0], load_checkpoint(other)[0]
    for key, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-2, atol=1e-3)


def test_two_and_three_processes_train_what_one_trains_and_one_of_them_speaks(tmp_path):
    # 184 windows in batches of 31: three processes have shares of 11, 10 and 10, at last of 10, 10 and 9.
    alone = trained(tmp_path / "one", 0, "--epochs=2")
    for processes in (2, 3):
        several = trained(tmp_path / str(processes), processes, "--epochs=2")
        assert several.stdout.count("lstm + ST-LoRA") == alone.stdout.count("lstm + ST-LoRA")
        assert several.stderr.count("epoch 1/2") == 1
        assert_about_same(tmp_path / str(processes), tmp_path / "one")


def test_a_batch_of_fewer_windows_than_processes(tmp_path):
    one, three = (tmp_path / name for name in ("one", "three"))
    options = ["--epochs=1", "--synthetic.steps=330", "--batch-size=61"]  # the last batch of training has one window
    trained(one, 0, *options)
    trained(three, 3, *options)
    assert_about_same(one, three)


def test_a_run_goes_on_under_another_number_of_processes(tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    trained(whole, 0, "--epochs=3")
    trained(moved, 2, "--epochs=1")
    trained(moved, 0, "--epochs=2", "--resume")
    last = trained(moved, 3, "--epochs=3", "--resume")
    assert "going on after epoch 2" in last.stderr
    assert (moved / LAST).exists()
    assert_about_same(moved, whole)


def test_pieces_and_processes_go_together(tmp_path):
    trained(tmp_path / "one", 0, "--epochs=1")
    trained(tmp_path / "two", 2, "--epochs=1", "--accumulate=3")
    assert_about_same(tmp_path / "two", tmp_path / "one")


def test_nodes_shared_among_processes_train_what_one_trains(tmp_path):
    one, nodes, moved = (tmp_path / name for name in ("one", "nodes", "moved"))
    trained(one, 0, "--epochs=2")
    trained(nodes, 2, "--epochs=2", "--shard-nodes", "--accumulate=2")
    assert_about_same(nodes, one)
    trained(moved, 3, "--epochs=1", "--shard-nodes")
    trained(moved, 2, "--epochs=2", "--resume")  # now they share batches
    assert_about_same(moved, one)


def test_bad_input_is_one_line_of_one_process(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "stlora_kernels.train", "--backbone=lstn", f"--output={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode != 0
    assert done.stderr.count("error: backbone: got 'lstn'") == 1
    assert not (tmp_path / "run").exists()
