"""Prints one table per run and kind of device, and appends it to bench/results/cpu.csv or gpu.csv.

Absolute times are for the reader; the claim is the ratio to the best peer of the same run.
"""

import csv
import datetime
import statistics
from pathlib import Path

import claims
import machine
import pytest
import torch

import stlora_kernels
from stlora_kernels.ops import native

RESULTS = Path(__file__).parent / "results"


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


def _rows(benchmarks) -> list[dict[str, object]]:
    about = {
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(),
        "cpu": machine.cpu(),
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
            about
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


def _gpu_rows(benchmarks) -> list[dict[str, object]]:
    run = {"date": datetime.date.today().isoformat(), "commit": machine.commit()}
    eager = {b.fullname: 1e3 * b.stats.median for b in benchmarks}
    graph = {b.fullname: statistics.median(b.extra_info["replays_ms"]) for b in benchmarks}
    rows = []
    for b in benchmarks:
        group = [other for other in benchmarks if other.group == b.group]
        peers = [o.fullname for o in group if not o.extra_info["layer"].startswith(claims.NO_PEERS)]
        info = dict(b.extra_info)
        device, least, replays = (info.pop(name) for name in ("machine", "least_bytes", "replays_ms"))
        first, _, third = statistics.quantiles(replays)
        share = least / (1e6 * graph[b.fullname] * device["copy_gb_per_s"])
        row = run | device | info
        row |= {"eager_ms": float(f"{eager[b.fullname]:.4g}"), "eager_iqr_ms": float(f"{1e3 * b.stats.iqr:.2g}")}
        row |= {"graph_ms": float(f"{graph[b.fullname]:.4g}"), "graph_iqr_ms": float(f"{third - first:.2g}")}
        for name, ms in (("best_peer_over_this", eager), ("best_graph_over_this", graph)):
            row[name] = round(min(ms[p] for p in peers) / ms[b.fullname], 2) if peers else ""
        row["copy_share"] = "" if info["layer"] == "linear" else round(share, 3)  # it has fewer bytes to move
        rows.append(row)
    return rows


def _print(reporter, title: str, rows: list[dict[str, object]], columns: list[str]) -> None:
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    reporter.section(title)
    reporter.line("  ".join(c.ljust(widths[c]) for c in columns))
    for row in rows:
        reporter.line("  ".join(str(row[c]).ljust(widths[c]) for c in columns))


def _append(path: Path, rows: list[dict[str, object]]) -> None:
    new = not path.exists()
    path.parent.mkdir(exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        if new:
            writer.writeheader()
        writer.writerows(rows)


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    benchmarks = [] if session is None else [b for b in session.benchmarks if not b.has_error]
    if on_gpu := [b for b in benchmarks if "replays_ms" in b.extra_info]:
        rows = _gpu_rows(on_gpu)
        at = list(rows[0]).index("operation")
        title = ", ".join(f"{name} {value}" for name, value in list(rows[0].items())[:at])
        _print(terminalreporter, title, rows, list(rows[0])[at:])
        _append(RESULTS / "gpu.csv", rows)
    if on_cpu := [b for b in benchmarks if b not in on_gpu]:
        rows = _rows(on_cpu)
        _print(terminalreporter, ", ".join(str(rows[0][c]) for c in list(rows[0])[:7]), rows, list(rows[0])[7:])
        terminalreporter.section("what was promised")
        for line in claims.lines(claims.claims(rows)):
            terminalreporter.line(line)
        _append(RESULTS / "cpu.csv", rows)
