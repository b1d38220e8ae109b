"""The Triton kernels are compiled for a GPU that is not here, and their machine code looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[1] / "bench" / "triton_static.py"


@pytest.mark.slow
def test_nothing_spills_everything_fits_and_tensor_cores_are_used():
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "--devices", "90", "gfx942"]
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    lines = [line.rsplit(maxsplit=11) for line in run.stdout.splitlines()[1:]]
    assert len(lines) == 2 * 2 * 3 * 2  # devices, kernels, dtypes, with dropout and without
    for *_, kind, _, _, spills, shared, limit, _, tensor_core, wide, _, _ in lines:
        assert int(spills) == 0
        assert int(shared) <= int(limit)
        assert int(wide) > 0
        assert int(tensor_core) > 0 or kind == "fp32"
