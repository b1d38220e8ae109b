"""The tables of an experiment, as texts in rows; Markdown for the reader."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stlora_kernels.reproduce.results import ERRORS, GridResults, Pair, Result
from stlora_kernels.reproduce.statistics import Comparison, Spread, compare, spread

NONE = "-"  # in a cell: not measured, or not defined


@dataclass(frozen=True)
class Table:
    """Rows of texts under a title."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def markdown(self) -> str:
        """With columns of equal width, so that it reads well unrendered too."""
        lines = [tuple(text.replace("|", "\\|") for text in row) for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, tuple("-" * width for width in widths))
        padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in lines]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(row)} |" for row in padded)])


def tables_of(grid: GridResults) -> list[Table]:
    """What the experiment shows, of the runs that are done."""
    pairs = grid.pairs()
    if grid.experiment == "figure4":
        return [costs_table(pairs), differences_table(pairs, [("RMSE", "pooled")])]
    if grid.experiment == "figure5":
        return [*map(sweep_table, sweeps(pairs)), differences_table(pairs, [("MAE", "pooled")]), costs_table(pairs)]
    baselines = [baselines_table(grid)] if grid.experiment == "table2" else []
    return [*baselines, differences_table(pairs), costs_table(pairs)]


def label(pair: Pair, pairs: Sequence[Pair]) -> str:
    """The model's name, with the adapter's sizes where these differ."""
    if len({(other.layers, other.rank) for other in pairs}) == 1:
        return pair.backbone
    return f"{pair.backbone}, {pair.layers} layer{'s' * (pair.layers > 1)}, rank {pair.rank}"


def difference(pair: Pair, key: tuple[str, str]) -> Comparison:
    """The adapter's effect on a kind of error at a place."""
    missing = {key: math.nan}
    return compare(
        {seed: (missing | result.errors())[key] for seed, result in pair.plain.items()},
        {seed: (missing | result.errors())[key] for seed, result in pair.adapted.items()},
    )


def seconds(pair: Pair) -> Comparison:
    """What the adapter costs per epoch."""
    return compare(
        {seed: result.seconds for seed, result in pair.plain.items()},
        {seed: result.seconds for seed, result in pair.adapted.items()},
    )


def parameters(pair: Pair) -> tuple[int | None, int | None]:
    """Of the model without and with the adapter; None where no run tells."""
    plain = next((result.parameters for result in pair.plain.values()), None)
    adapted = next(iter(pair.adapted.values()), None)
    if adapted is None:
        return plain, None
    return int(adapted.metrics["parameters"]["backbone"]), adapted.parameters


def overhead(before: float | None, after: float | None) -> float:
    """In percent; NaN where one is not known."""
    return 100 * (after / before - 1) if before and after is not None else math.nan


def differences_table(pairs: Sequence[Pair], keys: Sequence[tuple[str, str]] | None = None) -> Table:
    """Test errors without and with the adapter, and their paired difference: a row for each kind and place."""
    table = Table(
        'test errors without and with ("+") the adapter, and the paired difference "+" minus without',
        ("data", "model", "error", "at", "without", "+", "difference", "95 % interval", "p", "seeds"),
    )
    for pair in pairs:
        there = pair.any.errors()
        for key in keys or [key for kind in ERRORS for key in there if key[0] == kind]:
            found = difference(pair, key)
            table.rows.append(
                (
                    *(
                        data_name(pair.any),
                        label(pair, pairs),
                        *key,
                        spread_text(found.plain),
                        spread_text(found.adapted),
                    ),
                    *(spread_text(found.difference, "+"), interval_text(found), p_text(found.p), seeds_text(found)),
                )
            )
    return table


def costs_table(pairs: Sequence[Pair]) -> Table:
    """Parameters and seconds per epoch without and with the adapter, and the epochs that the runs had."""
    table = Table(
        'costs without and with ("+") the adapter',
        (
            *("data", "model", "parameters", "+", "overhead", "s per epoch", "s, +", "overhead", "difference in s"),
            *("95 % interval", "p", "seeds", "epochs", "epochs, +"),
        ),
    )
    for pair in pairs:
        counts, found = parameters(pair), seconds(pair)
        table.rows.append(
            (
                *(data_name(pair.any), label(pair, pairs), *(NONE if n is None else f"{n:,}" for n in counts)),
                percent(overhead(*counts)),
                *(spread_text(found.plain), spread_text(found.adapted)),
                percent(overhead(found.plain.mean, found.adapted.mean)),
                *(spread_text(found.difference, "+"), interval_text(found), p_text(found.p), seeds_text(found)),
                *(_epochs(list(runs.values())) for runs in (pair.plain, pair.adapted)),
            )
        )
    return table


def baselines_table(grid: GridResults) -> Table:
    """The classical baselines of every data set: HA, which every run measures, and those that were run."""
    rows: list[tuple[tuple[str, str], dict[str, str]]] = []
    for dataset, first in grid.datasets.items():
        models = [(name, first.errors(name)) for name in first.metrics["test"] if name.startswith("HA ")]
        of_set = [result for result in grid.fitted() if result.cell.config.dataset == dataset]
        models += [(result.metrics["model"], result.errors()) for result in of_set]
        for name, errors in models:
            texts = {at: " / ".join(number(errors[kind, at]) for kind in ERRORS) for _, at in errors}
            rows.append(((data_name(first), name), texts))
    places = tuple(dict.fromkeys(at for _, texts in rows for at in texts))
    return Table(
        "classical baselines, one run each: MAE / RMSE / MAPE %",
        ("data", "model", *places),
        [(*of, *(texts.get(at, NONE) for at in places)) for of, texts in rows],
    )


@dataclass(frozen=True)
class Sweep:
    """The test MAE of one backbone on one data set by the adapter's layers and rank.

    All means are over the same seeds, those that all sizes have run; where they share none, each over its own.
    """

    name: str
    layers: list[int]
    ranks: list[int]
    maes: dict[tuple[int, int], Spread]
    plain: Spread
    seeds: tuple[int, ...]

    def title(self) -> str:
        """What it shows."""
        over = seeds_list(self.seeds) if self.seeds else "seeds differ, their number in brackets"
        without = f"; without the adapter {spread_text(self.plain)}" if self.plain.runs else ""
        return f"{self.name}+: test MAE (pooled) by layers and rank, {over}{without}"

    def cell(self, layers: int, rank: int) -> str:
        """The mean of one size."""
        found = self.maes.get((layers, rank), spread([]))
        return spread_text(found) + (f" ({found.runs})" if found.runs and not self.seeds else "")


def sweeps(pairs: Sequence[Pair]) -> list[Sweep]:
    """One for every data set and backbone."""
    found = []
    for key in dict.fromkeys((pair.dataset, pair.backbone) for pair in pairs):
        of = {(pair.layers, pair.rank): pair for pair in pairs if (pair.dataset, pair.backbone) == key}
        first = next(iter(of.values()))
        runs = {size: pair.adapted for size, pair in of.items() if pair.adapted}
        shared = set.intersection(*(set(by_seed) for by_seed in runs.values())) if runs else set()

        def of_seeds(by_seed: dict[int, Result], shared: set[int] = shared) -> Spread:
            return spread(
                [run.errors()["MAE", "pooled"] for seed, run in by_seed.items() if seed in shared or not shared]
            )

        found.append(
            Sweep(
                name=f"{data_name(first.any)}, {first.backbone}",
                layers=sorted({layers for layers, _ in of}),
                ranks=sorted({rank for _, rank in of}),
                maes={size: of_seeds(by_seed) for size, by_seed in runs.items()},
                plain=of_seeds(first.plain),
                seeds=tuple(sorted(shared)),
            )
        )
    return found


def sweep_table(sweep: Sweep) -> Table:
    """A row for each number of layers, a column for each rank."""
    rows = [(str(layers), *(sweep.cell(layers, rank) for rank in sweep.ranks)) for layers in sweep.layers]
    return Table(sweep.title(), ("layers", *(f"rank {rank}" for rank in sweep.ranks)), rows)


def data_name(result: Result) -> str:
    """Of the data set, with a word where it is no measurement."""
    data = result.metrics["data"]
    return f"{data['name']}{' (not measured)' if data['synthetic'] else ''}"


def number(value: float) -> str:
    """An error, or seconds."""
    return NONE if math.isnan(value) else f"{value:.3f}"


def spread_text(found: Spread, sign: str = "") -> str:
    """Mean ± standard deviation; with ``sign`` "+" that of a positive mean is shown."""
    if math.isnan(found.mean):
        return NONE
    return f"{found.mean:{sign}.3f}" + ("" if math.isnan(found.std) else f" ± {found.std:.3f}")


def interval_text(found: Comparison) -> str:
    """Both ends."""
    return NONE if math.isnan(found.interval[0]) else f"[{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"


def p_text(p: float) -> str:
    """Three digits, of very small ones a bound."""
    return NONE if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def seeds_list(seeds: Iterable[int]) -> str:
    """Such as "seeds 0, 1, 2"."""
    texts = [str(seed) for seed in sorted(seeds)]
    return f"seed{'s' * (len(texts) != 1)} {', '.join(texts) or 'none'}"


def percent(value: float) -> str:
    """With its sign."""
    return NONE if math.isnan(value) else f"{value:+.1f} %"


def seeds_text(found: Comparison) -> str:
    """How many seeds a row is of: pairs, or the runs of either side where there is no pair."""
    if found.seeds:
        return str(len(found.seeds))
    return f"{found.plain.runs} without, {found.adapted.runs} +"


def _epochs(results: Sequence[Result]) -> str:
    """How many each run had."""
    return " ".join(str(len(result.metrics["epochs"])) for result in results) or NONE
