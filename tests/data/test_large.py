"""LargeST in little memory: CA, 8600 sensors over five years of 15 minutes, opened, cut into windows and iterated
within 4 GB; and years of .h5 converted in less than their values take.

The values of CA are 6 GB that nobody has measured: a sparse file in which every 200th step is written, about 65 MB on
the disk, and the others are holes, which read as zeros. The limit is on what the process writes to (RLIMIT_DATA); the
pages of a memory map are the system's cache, which it takes back when it needs the room.
"""

import json
import subprocess
import sys
from pathlib import Path

import h5py
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


CONVERT = """
import resource, sys
import h5py, torch
from stlora_kernels.data.__main__ import main
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
most = 1024 * int(status["VmData"].split()[0]) + ROOM
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
main(["convert", sys.argv[1], sys.argv[2], "--resample", "15", "--graph", "identity"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_years_of_h5_are_converted_in_less_memory_than_they_take(tmp_path):
    days, nodes, room = 365, 700, 540 * 2**20
    rng = np.random.default_rng(0)
    day = rng.integers(0, 500, (288, nodes)).astype(np.float64)
    day[::3] = np.nan
    for year in (2018, 2019):
        times = np.datetime64(f"{year}-01-01", "ns") + np.arange(288 * days) * np.timedelta64(300, "s")
        with h5py.File(tmp_path / f"x_his_raw_{year}.h5", "w") as file:
            frame = file.create_group("t")
            frame["axis0"] = frame["block0_items"] = np.array([f"{node}" for node in range(nodes)], dtype="S6")
            frame["axis1"] = times.astype(np.int64)
            frame["axis1"].attrs["kind"] = np.bytes_("datetime64")
            # Only the first and the last day are written; the others are read as 7 all the same.
            values = frame.create_dataset("block0_values", (288 * days, nodes), "f8", chunks=day.shape, fillvalue=7)
            values[:288] = values[-288:] = day
    assert 2 * 288 * days * nodes * 4 > room  # as float32, though the files hold float64
    done = subprocess.run(
        [sys.executable, "-c", CONVERT.replace("ROOM", str(room)), str(tmp_path / "x_his_raw_*.h5"), tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = np.load(tmp_path / "out" / VALUES, mmap_mode="r")
    assert out.shape == (2 * 96 * days, nodes, 1)
    expected = np.nanmean(day.reshape(96, 3, nodes), axis=1).astype(np.float32)
    for first in (0, 96 * (days - 1), 96 * days, 96 * (2 * days - 1)):
        np.testing.assert_allclose(out[first : first + 96, :, 0], expected, rtol=1e-6)
    assert (out[96 : 96 * (days - 1)] == 7).all()
