"""The picture of an experiment: differences of errors, costs, or a heat map of the adapter's sizes."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stlora_kernels.errors import require
from stlora_kernels.files import replacing
from stlora_kernels.reproduce.document import TITLES, about_data, epochs_of, seeds_of, state
from stlora_kernels.reproduce.results import GridResults, Pair
from stlora_kernels.reproduce.statistics import spread
from stlora_kernels.reproduce.tables import data_name, difference, label, overhead, parameters, percent, seconds, sweeps

WITHOUT, WITH = "#8fa3b8", "#c8640a"
EXTRA = "picture"  # that brings matplotlib


def save_figure(grid: GridResults, path: Path) -> bool:
    """Draw what is done, and write it whole; False where there is no pair to draw."""
    pairs = grid.pairs()
    if not pairs:
        return False
    width, height = _size(grid, pairs)
    figure = require("matplotlib.figure", EXTRA).Figure(figsize=(width, height), layout="constrained")
    about = [about_data(result) for result in grid.datasets.values()]
    runs = [
        state(grid),
        seeds_of(grid.done),
        epochs_of(grid.cells),
        *filter(None, [" ".join(grid.cells[0].train_args)]),
    ]
    figure.suptitle(f"{TITLES[grid.experiment]}\n{'; '.join(runs)}", fontsize=12)
    figure.supxlabel("\n".join(about), fontsize=7, color="0.3")
    {"figure4": _draw_costs, "figure5": _draw_sweeps}.get(grid.experiment, _draw_differences)(figure, pairs)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    with replacing(path) as temporary:
        temporary.write_bytes(drawn.getvalue())
    return True


def _size(grid: GridResults, pairs: Sequence[Pair]) -> tuple[float, float]:
    if grid.experiment == "figure5":
        sizes = {(pair.layers, pair.rank) for pair in pairs}
        layers = len({layers for layers, _ in sizes})
        return 12, 2.0 + len(sweeps(pairs)) * (1.0 + 0.6 * max(layers, 2))
    if grid.experiment == "figure4":
        return 13, 4.5 + 0.1 * len(pairs)
    return 12, 2.2 + 0.75 * len(pairs) + 0.15 * len(grid.datasets)


def _draw_differences(figure: Any, pairs: Sequence[Pair]) -> None:
    """The change of the MAE at every place, in percent of the MAE without, with its interval."""
    axes = figure.subplots()
    places = list(dict.fromkeys(at for pair in pairs for kind, at in pair.any.errors() if kind == "MAE"))
    colours = require("matplotlib", EXTRA).colormaps["viridis"](np.linspace(0, 0.85, len(places)))
    for nth, (place, colour) in enumerate(zip(places, colours, strict=True)):
        rows, middles, ends = [], [], []
        for row, pair in enumerate(pairs):
            found = difference(pair, ("MAE", place))
            if found.seeds and found.plain.mean:
                scale = 100 / found.plain.mean
                rows.append(row + 0.7 * (nth + 0.5) / len(places) - 0.35)
                middles.append(scale * found.difference.mean)
                low, high = found.interval
                ends.append(
                    [0.0 if math.isnan(end) else scale * abs(end - found.difference.mean) for end in (low, high)]
                )
        if rows:
            bars = np.array(ends).T  # [2, rows]
            axes.errorbar(middles, rows, xerr=bars, fmt="o", color=colour, capsize=3, markersize=5, label=place)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [f"{data_name(pair.any)}\n{label(pair, pairs)}+" for pair in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel('change of the test MAE by "+", in percent of the MAE without (bars: 95 % interval of the pairs)')
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_costs(figure: Any, pairs: Sequence[Pair]) -> None:
    """(a) seconds per epoch, (b) parameters; above each pair the overhead, in (b) the change of the RMSE too."""
    left, right = figure.subplots(1, 2)
    times = [seconds(pair) for pair in pairs]
    _draw_bars(
        left,
        pairs,
        [(found.plain.mean, found.adapted.mean) for found in times],
        [percent(overhead(found.plain.mean, found.adapted.mean)) for found in times],
        [(found.plain.std, found.adapted.std) for found in times],
    )
    left.set_title("(a) seconds of training per epoch", loc="left", fontsize=10)
    counts = [tuple(math.nan if n is None else float(n) for n in parameters(pair)) for pair in pairs]
    notes = []
    for pair, (before, after) in zip(pairs, counts, strict=True):
        found = difference(pair, ("RMSE", "pooled"))
        change = 100 * found.difference.mean / found.plain.mean if found.seeds and found.plain.mean else math.nan
        notes.append(f"{percent(overhead(before, after))}\nRMSE {percent(change)}")
    _draw_bars(right, pairs, counts, notes)
    right.set_yscale("log")
    right.set_title("(b) parameters, and the change of the test RMSE (pooled)", loc="left", fontsize=10)
    low, high = right.get_ylim()
    right.set_ylim(low, high * 4)  # room for two lines above the bars


def _draw_bars(
    axes: Any,
    pairs: Sequence[Pair],
    heights: Sequence[tuple[float, ...]],
    notes: Sequence[str],
    spreads: Sequence[tuple[float, float]] | None = None,
) -> None:
    places = np.arange(len(pairs))
    for side, (name, colour) in enumerate((("without", WITHOUT), ("with ST-LoRA", WITH))):
        errors = None if spreads is None else np.nan_to_num([pair[side] for pair in spreads])
        axes.bar(
            places + 0.4 * side - 0.2, [pair[side] for pair in heights], 0.38, yerr=errors, color=colour, label=name
        )
    tops = np.nan_to_num(heights) + (0 if spreads is None else np.nan_to_num(spreads))
    for place, highest, note in zip(places, tops.max(axis=1), notes, strict=True):
        axes.annotate(note, (place, highest), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    several = len({pair.dataset for pair in pairs}) > 1
    names = [f"{data_name(pair.any)}\n{label(pair, pairs)}" if several else label(pair, pairs) for pair in pairs]
    axes.set_xticks(places, names, fontsize=8)
    axes.margins(y=0.15)
    axes.legend(fontsize=8, loc="upper left")


def _draw_sweeps(figure: Any, pairs: Sequence[Pair]) -> None:
    """A map of the mean test MAE for every data set and backbone; white where nothing is done."""
    found = sweeps(pairs)
    for axes, sweep in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found, strict=True):
        nothing = spread([])
        means = [[sweep.maes.get((layers, rank), nothing).mean for rank in sweep.ranks] for layers in sweep.layers]
        if sweep.maes:
            image = axes.imshow(np.ma.masked_invalid(means), cmap="viridis", aspect="auto")
            figure.colorbar(image, ax=axes, label="test MAE (pooled)")
            for (row, column), mean in np.ndenumerate(means):
                colour = "black" if not math.isnan(mean) and image.norm(mean) > 0.6 else "white"
                text = sweep.cell(sweep.layers[row], sweep.ranks[column]).replace(" ", "\n", 1)
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(sweep.ranks)), [str(rank) for rank in sweep.ranks])
        axes.set_yticks(range(len(sweep.layers)), [str(number) for number in sweep.layers])
        axes.set_xlabel("rank")
        axes.set_ylabel("layers")
        axes.set_title(sweep.title(), loc="left", fontsize=9)
