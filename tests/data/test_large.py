"""LargeST-CA, 8600 sensors over five years of 15 minutes: opened, cut into windows and iterated within 4 GB of memory.

The values are 6 GB that nobody has measured: a sparse file in which every 200th step is written, about 65 MB on the
disk, and the others are holes, which read as zeros. The limit is on what the process writes to (RLIMIT_DATA); the pages
of a memory map are the system's cache, which it takes back when it needs the room.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stlora_kernels.data.converted import ABOUT, ADJACENCY, VALUES

STEPS, NODES, LIMIT = 5 * 365 * 96 + 96, 8600, 4 * 10**9

CHILD = """
import json, resource, sys, time
import torch
resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
from stlora_kernels.data import ForecastData, load_dataset
started = time.perf_counter()
data = load_dataset(sys.argv[1])
task = ForecastData(data)
opened = time.perf_counter()
order = torch.Generator().manual_seed(0)
seen = 0
for part in (task.train, task.val, task.test):
    for batch, _ in zip(part.batches(16, shuffle=True, generator=order), range(8)):
        assert batch.x.shape == (16, 12, 8600, 3) and batch.y.shape == (16, 12, 8600, 1)
        assert batch.x.isfinite().all()
        seen += len(batch.x)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "counts": [len(part) for part in (task.train, task.val, task.test)],
    "scaler": task.scaler.state_dict(),
    "seen": seen,
    "seconds": [opened - started, time.perf_counter() - opened],
    "anonymous": 1024 * int(status["RssAnon"].split()[0]),
    "data": 1024 * int(status["VmData"].split()[0]),
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_largest_ca_fits_into_four_gigabytes(tmp_path):
    rng = np.random.default_rng(0)
    written = rng.uniform(0, 500, NODES).astype(np.float32)
    values = np.lib.format.open_memmap(tmp_path / VALUES, mode="w+", dtype=np.float32, shape=(STEPS, NODES, 1))
    values[::200, :, 0] = written
    graph = np.lib.format.open_memmap(tmp_path / ADJACENCY, mode="w+", dtype=np.float32, shape=(NODES, NODES))
    np.fill_diagonal(graph, 1)
    about = {
        "format": 1,
        "name": "CA",
        "quantity": "flow",
        "unit": "veh/15min",
        "inputs": "all",
        "split": [0.6, 0.2, 0.2],
        "null_value": 0.0,
        "synthetic": True,
        "steps_per_day": 96,
        "num_steps": STEPS,
        "times": [["2017-01-01T00:00:00", STEPS]],
        "clock": None,
        "sensor_ids": [str(node) for node in range(NODES)],
    }
    (tmp_path / ABOUT).write_text(json.dumps(about))
    on_disk = sum(512 * path.stat().st_blocks for path in tmp_path.iterdir())
    assert on_disk < 2 * 10**9
    child = CHILD.replace("MOST", str(LIMIT))
    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    print(report, on_disk)
    assert report["counts"] == [105164, 35055, 35054]
    assert report["seen"] == 3 * 8 * 16
    assert report["data"] < LIMIT
    assert report["scaler"]["mean"] == pytest.approx(written.mean() / 200, rel=1e-2)
