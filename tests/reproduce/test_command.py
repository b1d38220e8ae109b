"""``python -m stlora_kernels.reproduce`` as a user meets it."""

import os
import subprocess
import sys

import pytest

from stlora_kernels.reproduce.__main__ import main
from stlora_kernels.training.cli import run


def command(*options):
    return subprocess.run(
        [sys.executable, "-m", "stlora_kernels.reproduce", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param("table9", ["table9", "table2"], id="experiment"),
        pytest.param("table2 --seeds 0", ["--seeds", "0", "from 1 to"], id="seeds"),
        pytest.param("table2 --seeds many", ["--seeds", "many"], id="type"),
        pytest.param("table2 --datasets PEMS9", ["--datasets", "PEMS9", "PEMS08"], id="data-set"),
        pytest.param("table2 --backbones gru", ["--backbones", "gru", "stgcn"], id="backbone"),
        pytest.param("table2 --layers 2", ["--layers", "figure5"], id="option-of-another"),
        pytest.param("table2 --data {tmp}/none", ["{tmp}/none", "is not there"], id="no-folder"),
        pytest.param("table2 --data-dir {tmp}", ["PEMS04.npz", "{tmp}"], id="no-file"),
        pytest.param("table2 --output {tmp}/file", ["--output", "{tmp}/file"], id="output"),
        pytest.param("table2 --unknown 1", ["--unknown"], id="unknown"),
        pytest.param("table2 -- --seed 1", ["--seed 1", "the grid sets"], id="set-by-the-grid"),
    ],
)
def test_bad_input_is_one_line(options, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    argv = options.format(tmp=tmp_path).split()
    argv = argv if "--output" in argv else [argv[0], "--output", str(tmp_path / "out"), *argv[1:]]
    assert run(main, argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word.format(tmp=tmp_path) in err


@pytest.mark.parametrize(("module", "extra"), [("tyro", "train"), ("scipy", "train"), ("matplotlib", "picture")])
def test_a_missing_extra_is_named_before_anything_is_run(module, extra, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert run(main, ["table2", "--datasets", "synthetic", "--output", str(tmp_path / "out")]) == 2
    assert f"pip install 'stlora_kernels[{extra}]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_failed_runs_are_exit_code_1_and_the_last_line(fake_training, tmp_path, capsys):
    from stlora_kernels.reproduce.options import ReproduceOptions

    argv = ["table2", "--datasets", "synthetic", "--backbones", "lstm", "--seeds", "1"]
    fake_training(
        ReproduceOptions("table2", datasets=("synthetic",), backbones=("lstm",), seeds=1), how={"stlora": "fail"}
    )
    assert run(main, [*argv, "--output", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert "partial: 1 of 2 runs" in out
    assert err.splitlines()[-1] == "error: 1 of 2 runs failed: synthetic-lstm-stlora-seed0: the loss is nan"


def test_help_says_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for option in ("--data", "--data-dir", "--seeds", "--budget", "--jobs", "figure5", "What stands after --"):
        assert option in shown


@pytest.mark.slow
def test_table2_from_training_to_the_table(tmp_path):
    """The real training, on data small enough for seconds: run, shown, and shown again without running."""
    size = ["--datasets", "synthetic", "--backbones", "lstm", "--seeds", "2", "--epochs", "1"]
    tiny = ["--synthetic.nodes", "5", "--synthetic.steps", "320", "--max-batches", "2", "--adapter.hidden", "8"]
    options = ["table2", *size, "--output", tmp_path, "--", *tiny]
    done = command(*options)
    assert done.returncode == 0, done.stderr
    assert "**complete: 4 runs**" in done.stdout
    assert "synthetic (synthetic, not measured): flow in veh/5min, 5 sensors, 320 steps" in done.stdout
    assert "| MAPE % | pooled " in done.stdout
    for name in ("table2.md", "table2.csv", "table2-runs.csv", "table2.png"):
        assert (tmp_path / name).stat().st_size > 500
    again = command(*options)
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    assert again.stdout == done.stdout
