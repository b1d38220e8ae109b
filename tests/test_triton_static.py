"""The Triton kernels are compiled for GPUs that are not here, and their machine code looked at."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[1] / "bench" / "triton_static.py"
DEVICES = (("80", "86", "89", "90"), ("100", "120", "gfx942"))  # a process each
# The paper's sizes with both kinds of rows, forward and backward; fp16 compiles as bf16 does.
PROBLEMS = [("64 307 144", "16"), ("768 170 64", "16")]


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "rank"), PROBLEMS)
def test_nothing_spills_everything_fits_and_tensor_cores_are_used(sizes, rank):
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    options = ["--sizes", *sizes.split(), "--rank", rank, "--dtypes", "bf16", "fp32", "--dropout", "0.1", "--devices"]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *options, *devices],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        )
        for devices in DEVICES
    ]  # fmt: skip
    rows = []
    for process in processes:
        table, errors = process.communicate()
        assert process.returncode == 0, errors
        rows += csv.DictReader(table.splitlines())
    assert len(rows) == 7 * 6 * 2  # devices, operations forward and backward, dtypes; a launch each
    for row in rows:
        assert row["launches"] == "1", row
        assert row["spills"] == "0", row
        assert int(row["shared bytes"]) <= int(row["shared limit"]), row
        assert int(row["16-byte loads"]) > 0, row
        assert int(row["tensor-core instructions"]) > 0 or row["dtype"] == "fp32", row


@pytest.mark.slow
def test_every_choice_of_gradients_compiles():
    """A gradient that nobody wants has no memory to write to; the interpreter never gets where that matters."""
    code = """
import itertools, sys
sys.path.insert(0, sys.argv[1])
import torch, triton_static
from stlora_kernels.ops.nall import triton as nall
device = triton_static.DEVICES["80"]
picks = [c for n in (1, 2, 4, 5) for c in itertools.combinations(range(5), n)]
def call(operation, backend, dtype, sizes, p, where):
    x, weight, bias = (torch.empty(*s, dtype=dtype, device=where) for s in ((64, 3, 32), (32, 32), (32,)))
    A, B = (torch.empty(*s, dtype=dtype, device=where) for s in ((3, 32, 4), (3, 4, 32)))
    for pick in picks:
        nall.backward(x, x, [i in pick for i in range(5)], x, weight, bias, A, B, None, None, 1.0, 0.0, "relu", 0.1)
triton_static.call = call
print(len(triton_static.launches_of("nall backward", device, torch.float16, (64, 3, 32, 4), 0.0)) == len(picks))
"""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", code, str(SCRIPT.parent)]
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.stdout == "True\n", run.stderr
