"""The README is a promise: every command and every piece of Python in it is run here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
SETUP = ["./dev train", "./dev test"]
QUICK = " --epochs 1 --max-batches 2"  # what makes a training short enough for a test
QUICK_GRID = " --epochs 1 --seeds 1 -- --max-batches 2"  # and a grid of them


def test_the_first_screen_has_exactly_the_two_set_up_commands():
    assert COMMANDS[:2] == SETUP
    assert not any(command.startswith("./dev") for command in COMMANDS[2:])
    assert README.index("./dev test\n```") < 2500


def test_ci_runs_the_readmes_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "./dev test" in lines


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python(code):
    scope: dict = {}
    exec(code, scope)
    for name, shape in re.findall(r"(\w+) = .*: \[([\d, ]+)\]$", code, re.MULTILINE):
        assert list(scope[name].shape) == [int(size) for size in shape.split(",")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with short files of the kinds the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    pems08 = folder / "data" / "PEMS08"
    pems08.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.savez(pems08 / "PEMS08.npz", data=rng.uniform(50, 300, (200, 170, 1)).astype(np.float32))
    edges = "".join(f"{i % 170},{(i + 1 + i // 170) % 170},100.0\n" for i in range(295))  # as many as PEMS08 has
    (pems08 / "PEMS08.csv").write_text("from,to,cost\n" + edges)
    sensors = [f"road_{i}" for i in range(5)]
    rows = [
        ",".join([f"2024-01-01 {t // 12:02}:{t % 12 * 5:02}:00", *(f"{v:.1f}" for v in rng.uniform(20, 60, 5))])
        for t in range(200)
    ]
    (folder / "my_speed.csv").write_text("\n".join([",".join(["time", *sensors]), *rows]) + "\n")
    (folder / "my_adjacency.csv").write_text(
        "\n".join(",".join("01"[abs(i - j) == 1] for j in range(5)) for i in range(5)) + "\n"
    )
    return folder


@pytest.mark.slow
def test_commands_after_set_up(workplace):
    """In the order of the README, because later ones use the runs of earlier ones."""
    env = os.environ | {"STLORA_DATA": str(workplace / "data")}
    for command in COMMANDS[2:]:
        quick = QUICK if ".train" in command else QUICK_GRID if ".reproduce" in command else ""
        line = command.replace(".venv/bin/python", sys.executable) + quick
        result = subprocess.run(line, shell=True, cwd=workplace, env=env, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"


@pytest.mark.slow
def test_set_up_and_main_job_from_a_fresh_clone(tmp_path):
    """`./dev test` is what runs this file in CI; here `./dev train`, cut short, from nothing but the sources."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    # (without any argument `./dev train` means --stlora and five epochs)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("STLORA", "VIRTUAL_ENV"))}
    env |= {"PYTHON": sys.executable, "STLORA_CUDA": "off"}  # with nvcc it would build for minutes
    result = subprocess.run(
        "./dev train --stlora" + QUICK, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert "lstm + ST-LoRA" in result.stdout
    assert "HA (last value)" in result.stdout
    assert "slow reference backend" not in result.stderr, "the kernels were built"
