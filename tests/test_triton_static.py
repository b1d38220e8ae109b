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
