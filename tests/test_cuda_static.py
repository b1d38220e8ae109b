"""The CUDA kernels are compiled for GPUs that are not here, and their machine code looked at."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "cuda_static.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc"),
]


@pytest.mark.parametrize(
    ("sizes", "devices", "numbers"),
    [("64 307 144", "80 90 100 120", "bf16 fp32"), ("768 170 64", "90", "bf16 tf32")],
)
def test_nothing_spills_everything_fits_and_tensor_cores_are_used(sizes, devices, numbers):
    options = ["--sizes", *sizes.split(), "--devices", *devices.split(), "--numbers", *numbers.split()]
    run = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = list(csv.DictReader(run.stdout.splitlines()))
    assert len(rows) == len(devices.split()) * 6 * 2  # operations forward and backward, numbers
    for row in rows:
        if row["launches"].startswith("refused"):  # wide rows of fp32 on a small GPU
            assert (row["device"], row["D"]) == ("RTX 5090 (120)", "144"), row
            assert row["numbers"] != "bf16", row
            continue
        assert row["launches"] == "1", row
        assert row["spills"] == "0", row
        assert int(row["shared bytes"]) <= int(row["shared limit"]), row
        assert int(row["16-byte loads"]) > 0, row
        assert (int(row["tensor-core instructions"]) > 0) == (row["numbers"] != "fp32"), row
        assert int(row["FFMA"]) > 500 or row["numbers"] != "fp32", row
        assert float(row["asked over least"]) < (4 if "forward" in row["operation"] else 20), row
