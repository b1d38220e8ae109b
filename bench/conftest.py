"""Prints one table per run and appends it to bench/results/cpu.csv.

Absolute times are for the reader; the claim is the ratio to the best peer of the same run.
"""

import csv
import datetime
import platform
import subprocess
from pathlib import Path

import claims
import pytest
import torch

import stlora_kernels
from stlora_kernels.ops import native

RESULTS = Path(__file__).parent / "results" / "cpu.csv"


@pytest.fixture
def measure(benchmark):
    """Times one work of one layer and names it for the table.

    ``forward_flop`` is what the shared linear layer needs for the same rows: the work a user thinks of. ``calls`` are
    timed together where one would be too short for the clock.
    """

    def run(operation, shape, work, layer, call, leaves, forward_flop, calls=1) -> None:
        backward = work == "forward+backward"
        for leaf in leaves:
            leaf.requires_grad_(backward)
        with torch.set_grad_enabled(backward):
            grad = torch.randn_like(call(*leaves))

            def once() -> None:
                y = call(*leaves)
                if backward:
                    y.backward(grad)
                    for leaf in leaves:
                        leaf.grad = None

            benchmark.group = f"{operation} {shape} {work}"
            flop = forward_flop * (3 if backward else 1)
            benchmark.extra_info.update(operation=operation, shape=shape, work=work, layer=layer, flop=flop)
            benchmark.pedantic(once, rounds=15, warmup_rounds=3, iterations=calls)

    return run


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def _rows(benchmarks) -> list[dict[str, object]]:
    machine = {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "cpu": _cpu(),
        "isa": native.kernels().selected_isa(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "stlora_kernels": stlora_kernels.__version__,
    }
    rows = []
    for b in benchmarks:
        group = [other for other in benchmarks if other.group == b.group]
        peers = [o.stats.median for o in group if not o.extra_info["layer"].startswith(claims.NO_PEERS)]
        linear = [o.stats.median for o in group if o.extra_info["layer"] == "linear"]  # in fp32
        info = dict(b.extra_info)
        flop = info.pop("flop")
        rows.append(
            machine
            | info
            | {
                "median_ms": float(f"{b.stats.median * 1e3:.4g}"),
                "iqr_ms": float(f"{b.stats.iqr * 1e3:.2g}"),
                "gflop_per_s": round(flop / b.stats.median / 1e9, 1),  # GB/s where the work is a copy
                "best_peer_over_this": round(min(peers) / b.stats.median, 2) if peers else "",
                "linear_over_this": round(linear[0] / b.stats.median, 2)
                if linear and not b.extra_info["layer"].endswith("bf16")
                else "",
            }
        )
    return rows


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    rows = _rows(session.benchmarks) if session is not None else []
    if not rows:
        return
    columns = list(rows[0])[7:]
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    terminalreporter.section(", ".join(str(rows[0][c]) for c in list(rows[0])[:7]))
    terminalreporter.line("  ".join(c.ljust(widths[c]) for c in columns))
    for row in rows:
        terminalreporter.line("  ".join(str(row[c]).ljust(widths[c]) for c in columns))
    terminalreporter.section("what was promised")
    for line in claims.lines(claims.claims(rows)):
        terminalreporter.line(line)
    new = not RESULTS.exists()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        if new:
            writer.writeheader()
        writer.writerows(rows)
