"""The table of promises computes what it says, from rows as a run writes them."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("claims", Path(__file__).parents[1] / "bench" / "claims.py")
assert spec is not None
assert spec.loader is not None
claims = importlib.util.module_from_spec(spec)
spec.loader.exec_module(claims)


def row(operation, shape, work, layer, ms, **more):
    return {"operation": operation, "shape": shape, "work": work, "layer": layer, "median_ms": ms, "isa": "avx2"} | more


def test_promises_are_kept_missed_or_not_measured():
    first, second = claims.LARGE
    rows = [
        row("nall", first, "forward", "ours", 6.0),
        row("nall", first, "forward", "linear", 5.0),
        row("nall", first, "forward", "bmm", 9.0),
        row("nall", first, "forward", "ours bf16", 3.0),
        row("nall", second, "forward+backward", "ours", 10.0),
        row("nall", second, "forward+backward", "merged compiled", 20.0),
        row("nall", second, "forward+backward", "einsum", 30.0),
        row("nall", second, "forward+backward", "linear", 1.0),  # no peer
        row("nall", "M16-N307-D64-r16", "forward+backward", "ours", 3.07),
        row("nall", "M16-N8600-D64-r16", "forward+backward", "ours", 94.6),
        row("roofline", "1024x1024x1024", "product", "machine", 10.0, gflop_per_s=200.0),
    ]
    found = {(c.work, c.shape): c for c in claims.claims(rows)}
    forward = found["nall forward against F.linear", first]
    assert (forward.measured, forward.kept) == (pytest.approx(1.2), "NO")
    training = found["nall forward+backward", second]
    assert (training.measured, training.must, training.kept) == (2.0, 1.6, "yes")
    assert found["nsp_stack forward+backward", first].kept == "not measured"
    assert found["nall forward, bf16 against fp32", first].kept == "not measured"  # rows of a machine without
    assert found["nall forward+backward, a node of 8600 against one of 307", "M16-D64-r16"].measured == pytest.approx(
        1.1
    )
    flop = 2 * 64 * 307 * (144 * 144 + 16 * 288)
    assert found["nall forward", first].measured == pytest.approx(flop / 6e-3 / 200e9)
    assert len(claims.lines(list(found.values()))) == len(found) + 1
