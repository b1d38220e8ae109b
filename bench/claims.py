"""The rows that the project promises, with what each must reach, what it aims for and what this run measured."""

from collections.abc import Iterable
from dataclasses import dataclass

Row = dict[str, object]
LARGE = ("M64-N307-D144-r16", "M768-N170-D64-r16")
NO_PEERS = ("ours", "linear", "machine")  # layers that a ratio to the best peer leaves out
FORWARD, TRAINING = "forward", "forward+backward"


@dataclass(frozen=True)
class Claim:
    work: str
    shape: str
    unit: str
    must: float
    aim: float
    measured: float | None  # None: this run, or this machine, does not measure it
    less_is_better: bool = False

    @property
    def kept(self) -> str:
        if self.measured is None:
            return "not measured"
        return "yes" if (self.measured <= self.must if self.less_is_better else self.measured >= self.must) else "NO"


def claims(rows: Iterable[Row]) -> list[Claim]:
    """One claim for each promise, from the rows of one run."""
    table = {(r["operation"], r["shape"], r["work"], r["layer"]): r for r in rows}

    def ms(operation: str, shape: str, work: str, layer: str = "ours") -> float | None:
        row = table.get((operation, shape, work, layer))
        return None if row is None else float(str(row["median_ms"]))

    def best(operation: str, shape: str, work: str) -> float | None:
        return min((float(str(r["median_ms"])) for key, r in table.items() if key[:3] == (operation, shape, work)
                    and not key[3].startswith(NO_PEERS)), default=None)  # fmt: skip

    def ratio(numerator: float | None, denominator: float | None) -> float | None:
        return None if numerator is None or not denominator else numerator / denominator

    first = LARGE[0]
    found = [
        Claim("nall forward against F.linear", shape, "of its time", 1.0, 0.6,
              ratio(ms("nall", shape, FORWARD), ms("nall", shape, FORWARD, "linear")), less_is_better=True)
        for shape in LARGE
    ]  # fmt: skip
    targets: list[tuple[str, tuple[float, float], tuple[float, float]]] = [
        ("nall", (1.3, 1.6), (1.6, 2.4)),
        ("nsp_layer", (2.5, 3.7), (4, 6)),
        ("nsp_stack", (2.5, 3.4), (4, 6)),
    ]
    found += [
        Claim(f"{operation} {TRAINING}", shape, "x the best peer", *bars,
              ratio(best(operation, shape, TRAINING), ms(operation, shape, TRAINING)))
        for operation, *both in targets for shape, bars in zip(LARGE, both, strict=True)
    ]  # fmt: skip
    sgemm = table.get(("roofline", "1024x1024x1024", "product", "machine"))
    found.append(_share(sgemm, ms("nall", first, FORWARD), f"nall {FORWARD}", 1, 0.8, 0.95))
    found.append(_share(sgemm, ms("nsp_stack", first, TRAINING), f"nsp_stack {TRAINING}", 12, 0.65, 0.85))
    bf16 = table.get(("nall", first, FORWARD, "ours bf16"), {})
    has_dot = bf16.get("isa") == "avx512_bf16"  # elsewhere bf16 saves memory, not time
    found.append(
        Claim("nall forward, bf16 against fp32", first, "x faster", 1.4, 2.0,
              ratio(ms("nall", first, FORWARD), ms("nall", first, FORWARD, "ours bf16")) if has_dot else None)
    )  # fmt: skip
    for operation in ("nall", "nsp_stack"):
        many, few = (ms(operation, f"M16-N{N}-D64-r16", TRAINING) for N in (8600, 307))
        per_node = ratio(many and many / 8600, few and few / 307)
        found.append(
            Claim(f"{operation} {TRAINING}, a node of 8600 against one of 307", "M16-D64-r16", "of its time", 1.2, 1.05,
                  per_node, less_is_better=True)
        )  # fmt: skip
    small = sorted({key[1:3] for key in table if key[0] == "small nall"})
    found += [Claim(f"small nall {work}", shape, "x the best eager peer", 1 / 1.1, 1.0,
                    ratio(best("small nall", shape, work), ms("small nall", shape, work)))
              for shape, work in small]  # fmt: skip
    return found


def _share(sgemm: Row | None, ms: float | None, work: str, forwards: int, must: float, aim: float) -> Claim:
    """Of the rate of a large product: with its low-rank path, a layer's flop are what bounds it, not its bytes."""
    M, N, D, r = 64, 307, 144, 16
    flop = forwards * 2 * M * N * (D * D + r * 2 * D)
    measured = None if sgemm is None or ms is None else flop / (ms * 1e6) / float(str(sgemm["gflop_per_s"]))
    return Claim(work, LARGE[0], "of a large product's rate", must, aim, measured)


def lines(found: list[Claim]) -> list[str]:
    """The table, a line for each claim."""
    header = ["work", "shape", "unit", "must", "aim", "measured", "kept"]
    body = [
        [c.work, c.shape, c.unit, ("<= " if c.less_is_better else ">= ") + f"{c.must:.2f}", f"{c.aim:.2f}",
         "-" if c.measured is None else f"{c.measured:.2f}", c.kept]
        for c in found
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
    return [" | ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]) for row in [header, *body]]
