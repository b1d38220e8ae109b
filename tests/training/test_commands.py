"""``python -m stlora_kernels.train`` and ``evaluate`` as a user meets them."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

from stlora_kernels.evaluate import main as evaluate_main
from stlora_kernels.train import main as train_main
from stlora_kernels.training.checkpoint import load_checkpoint
from stlora_kernels.training.cli import run

# Warnings are not errors; what these tests look at is what the commands say themselves.
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}


def command(name, *options, **settings):
    return subprocess.run(
        [sys.executable, "-m", f"stlora_kernels.{name}", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
        **settings,
    )


def refused(capsys, main, *options):
    """The one line that a command refuses its options with."""
    assert run(main, list(map(str, options))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_train_and_evaluate_print_the_same_table(tiny_options, tmp_path):
    trained = command("train", "--stlora", *tiny_options)
    assert trained.returncode == 0, trained.stderr
    assert "lstm + ST-LoRA" in trained.stdout
    assert [line.split()[0] for line in trained.stderr.splitlines()] == ["lstm", "adam", "epoch", "epoch"]
    evaluated = command("evaluate", "--run", tmp_path / "run")
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stderr == ""
    table = evaluated.stdout.splitlines()[:-1]
    assert len(table) > 15
    assert trained.stdout.splitlines()[: len(table)] == table


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_says_every_option_and_its_default(name):
    shown = command(name, "--help")
    assert shown.returncode == 0
    assert shown.stderr == ""
    options = {
        "train": ["--config", "--dataset", "--data-dir", "--stlora", "--adapter.rank", "default: 64", "synthetic"],
        "evaluate": ["--run", "--data-dir", "--device"],
    }
    for word in options[name]:
        assert word in shown.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param("--dataset PEMS9", ["PEMS9", "PEMS08", "METR-LA", "synthetic"], id="unknown-data-set"),
        pytest.param("--backbone gru", ["gru", "lstm", "stgcn"], id="unknown-backbone"),
        pytest.param("--dataset PEMS08", ["STLORA_DATA", "--data-dir"], id="no-data-folder"),
        pytest.param("--dataset PEMS08 --data-dir {tmp}", ["PEMS08.npz", "{tmp}"], id="missing-file"),
        pytest.param("--dataset {tmp}/no.csv --adjacency {tmp}/a.csv", ["no.csv"], id="missing-csv"),
        pytest.param("--synthetic.steps 24", ["24 steps", "too few"], id="too-few-steps"),
        pytest.param("--split 1 1 0", ["split", "positive"], id="empty-part"),
        pytest.param("--epochs -3", ["--epochs", "-3"], id="negative-size"),
        pytest.param("--horizon 0", ["--horizon", "0"], id="zero-size"),
        pytest.param("--adapter.rank 0", ["--adapter.rank", "0"], id="zero-rank"),
        pytest.param("--device gpu", ["--device", "'gpu'"], id="no-such-device"),
        pytest.param("--device meta", ["--device", "'meta'"], id="device-without-numbers"),
        pytest.param("--device mkldnn", ["--device", "'mkldnn'", "cpu, cuda, mps, xpu"], id="device-without-kernels"),
        pytest.param("--backend fast", ["--backend", "'fast'", "reference"], id="unknown-kernel-backend"),
        pytest.param(
            "--stlora --adapter.temporal step --horizon 6", ["step", "12", "6"], id="step-needs-window-equal-horizon"
        ),
        pytest.param("--backbone stgcn --window 8", ["window", "8", "9"], id="window-too-short-for-the-backbone"),
        pytest.param("--stlora --frozen --backbone-checkpoint {tmp}/x", ["no checkpoint", "x"], id="no-checkpoint"),
        pytest.param("--config {tmp}/none.yaml", ["none.yaml"], id="missing-yaml"),
        pytest.param("--unknown 1", ["--unknown"], id="unknown-option"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    options, words, tmp_path, tiny_model, tiny_options, capsys, monkeypatch
):
    monkeypatch.delenv("STLORA_DATA", raising=False)
    tiny = tiny_model if "--dataset" in options else tiny_options
    message = refused(capsys, train_main, *tiny, *options.format(tmp=tmp_path).split())
    for word in words:
        assert word.format(tmp=tmp_path) in message
    assert list(tmp_path.iterdir()) == []


TIMES = [f"2024-01-01 {hour:02d}:{minute:02d}:00" for hour in range(24) for minute in range(0, 60, 15)]


def own_data(folder, values="12.5", adjacency="0,1\n1,0\n", header="time,a,b"):
    lines = [header, *(f"{time},{30 + i % 7},{values if i == 50 else 40 - i % 5}" for i, time in enumerate(TIMES))]
    (folder / "my.csv").write_text("\n".join(lines) + "\n")
    (folder / "adj.csv").write_text(adjacency)
    return ["--dataset", folder / "my.csv", "--adjacency", folder / "adj.csv"]


def test_own_csv_trains(tmp_path, tiny_model, capsys):
    assert run(train_main, [*map(str, own_data(tmp_path)), "--horizon=4", *tiny_model]) == 0
    out, _ = capsys.readouterr()
    assert "45 min" in out
    assert "synthetic" not in out


def test_own_csv_with_gaps_trains(tmp_path, tiny_model, capsys, caplog):
    options = own_data(tmp_path)
    lines = (tmp_path / "my.csv").read_text().splitlines()
    kept = [line.replace(",31,", ",,") for i, line in enumerate(lines) if not 20 <= i < 24]  # an hour and many values
    (tmp_path / "my.csv").write_text("\n".join(kept) + "\n")
    assert run(train_main, [*map(str, options), "--horizon=4", *tiny_model]) == 0
    out, _ = capsys.readouterr()
    assert "45 min" in out
    assert "nan" not in out.lower().replace("(nan)", "")  # of the line that names what is missing
    assert "windows cross 1 gap(s) in time" in caplog.text


@pytest.mark.parametrize("own", [False, True], ids=["by-name", "as-ones-own-files"])
def test_the_csv_pair_of_sz_taxi_trains_with_one_command(own, real_data, tiny_model, capsys):
    files = real_data / "SZ-TAXI"
    named = ["--dataset", "SZ-TAXI", "--data-dir", real_data]
    pair = ["--dataset", files / "sz_speed.csv", "--adjacency", files / "sz_adj.csv"]
    options = [*map(str, pair if own else named), *tiny_model, "--max-batches=2"]
    assert run(train_main, options) == 0
    out, err = capsys.readouterr()
    assert "180 min" in out  # 12 steps of 15 minutes
    assert "156 sensors, 2976 steps of 15 min, graph (dataset) of 156 nodes" in err or own


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"values": "fast"}, ["my.csv", "fast"], id="not-a-number"),
        pytest.param({"values": "1,2"}, ["my.csv"], id="ragged"),
        pytest.param({"values": "inf"}, ["my", "infinite"], id="infinite"),
        pytest.param(
            {"adjacency": "0,1,0\n1,0,0\n0,0,0\n"}, ["graph has 3 nodes", "2 sensors"], id="graph-of-other-sensors"
        ),
        pytest.param({"adjacency": "0,1\n1\n"}, ["adj.csv"], id="ragged-graph"),
        pytest.param({"adjacency": "0,-1\n1,0\n"}, ["-1"], id="negative-weight"),
        pytest.param({"adjacency": "0,x\n1,0\n"}, ["adj.csv", "x"], id="graph-that-is-no-number"),
        pytest.param({"adjacency": "0,nan\n1,0\n"}, ["adj"], id="graph-with-nan"),
    ],
)
def test_bad_csv_is_one_line_and_nothing_is_written(change, words, tmp_path, tiny_model, capsys):
    message = refused(capsys, train_main, *own_data(tmp_path, **change), *tiny_model)
    for word in words:
        assert word in message
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adj.csv", "my.csv"]


class RunsCode:
    """Pickled, it makes a folder of this name when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_graph_that_tries_to_run_code_is_refused_and_does_not(tmp_path, tiny_model, capsys):
    graph = tmp_path / "adj.pkl"
    graph.write_bytes(pickle.dumps([["a", "b"], {"a": 0, "b": 1}, RunsCode(tmp_path / "ran")]))
    message = refused(capsys, train_main, *own_data(tmp_path)[:2], "--adjacency", graph, *tiny_model)
    assert "adj.pkl" in message
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()


def test_csv_without_a_graph_asks_for_one(tmp_path, tiny_model, capsys):
    message = refused(capsys, train_main, *own_data(tmp_path)[:2], *tiny_model)
    assert "needs a graph" in message
    assert "adjacency" in message


def test_a_finished_run_is_refused(tmp_path, tiny_options, capsys):
    assert run(train_main, tiny_options) == 0
    capsys.readouterr()
    assert "--overwrite" in refused(capsys, train_main, *tiny_options)
    assert run(train_main, [*tiny_options, "--overwrite"]) == 0


def test_evaluate_refuses_a_folder_without_a_run(tmp_path, capsys):
    assert "no checkpoint" in refused(capsys, evaluate_main, "--run", tmp_path)


def test_errors_of_the_real_command_have_no_traceback(tmp_path, tiny_options):
    failed = command("train", *tiny_options, "--backbone", "gru", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_diverging_is_exit_code_1_and_names_the_batch(tiny_options, capsys):
    assert run(train_main, [*tiny_options, "--learning-rate", "1e30", "--quiet"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: the loss is nan at epoch 1, batch 2 of")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="python"),
        pytest.param(MemoryError("Unable to allocate 7 EiB for an array"), id="numpy"),
        pytest.param(OverflowError("int too big to convert"), id="overflow"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore"), id="torch-cpu"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), id="torch-gpu"),
    ],
)
def test_sizes_too_large_for_memory_are_one_line(error, capsys):
    def main(argv):
        raise error

    assert "a size is too large" in refused(capsys, main)


def test_a_size_that_no_tensor_can_have_is_one_line(capsys):
    assert "a size is too large" in refused(capsys, lambda argv: torch.empty(2**60, 2**10))


@pytest.mark.parametrize("error", [RuntimeError("of torch"), ValueError("of a kernel")], ids=["torch", "kernel"])
def test_an_error_that_is_no_users_keeps_its_traceback(error):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        run(main, [])


def test_a_full_disk_is_exit_code_1_and_one_line(tiny_options, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("stlora_kernels.training.experiment.save_checkpoint", full)
    assert run(train_main, tiny_options) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: [Errno 28] No space left on device"


@pytest.mark.parametrize("module", ["tyro", "yaml", "safetensors", "rich"])
def test_a_missing_extra_is_named_before_anything_is_trained(module, tmp_path, tiny_options, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(capsys, train_main, *tiny_options)
    assert f"{module} is not installed" in message
    assert "pip install 'stlora_kernels[train]'" in message
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_in_the_middle_of_training_keeps_the_best_epoch(tmp_path, tiny_options):
    process = subprocess.Popen(
        [sys.executable, "-m", "stlora_kernels.train", *tiny_options, "--epochs=100000", "--patience=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    lines = [process.stderr.readline() for _ in range(3)]  # what is trained, how, and one epoch
    assert lines[-1].startswith("epoch")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("stopped: kept ")
    assert str(tmp_path / "run" / "best.safetensors") in last
    assert out == ""
    files = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert files == ["best.json", "best.safetensors", "config.yaml", "last.safetensors"]
    _, about = load_checkpoint(tmp_path / "run")
    assert f"of epoch {about['epoch']}," in last
