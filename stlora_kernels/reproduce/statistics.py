"""Repeated runs as numbers: mean and spread, and the difference of pairs that share a seed."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stlora_kernels.errors import require

CONFIDENCE = 0.95
ROUNDING = 1e-12  # of the largest value: a spread below it is that of float64, not of the runs


class Spread(NamedTuple):
    """Mean and standard deviation (divided by n - 1) of so many ``runs``; NaN where too few runs define it."""

    mean: float
    std: float
    runs: int


class Comparison(NamedTuple):
    """Runs without the adapter, with it, and the difference with minus without, of the pairs with one seed.

    Both spreads are of the seeds that have both runs; where no seed has, of all the runs there are.
    ``interval`` and ``p`` are of the two-sided paired t-test at 95 %: NaN with fewer than two pairs; ``p`` is NaN too
    where all differences are equal, which leaves nothing to test against.
    """

    seeds: tuple[int, ...]
    plain: Spread
    adapted: Spread
    difference: Spread
    interval: tuple[float, float]
    p: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of any number of values."""
    runs = len(values)
    mean = float(np.mean(values)) if runs else math.nan
    return Spread(mean, float(np.std(values, ddof=1)) if runs > 1 else math.nan, runs)


def compare(plain: Mapping[int, float], adapted: Mapping[int, float]) -> Comparison:
    """Compare two models by seed; NaN counts as no run.

    Raises:
        MissingExtraError: if scipy is not installed.
    """
    before, after = ({seed: value for seed, value in runs.items() if value == value} for runs in (plain, adapted))
    seeds = tuple(sorted(before.keys() & after.keys()))
    if not seeds:
        nothing = spread([])
        return Comparison(
            seeds, spread(list(before.values())), spread(list(after.values())), nothing, (math.nan, math.nan), math.nan
        )
    x, y = (np.array([runs[seed] for seed in seeds], dtype=np.float64) for runs in (before, after))
    differences = y - x
    difference, interval, p = spread(differences.tolist()), (math.nan, math.nan), math.nan
    if len(seeds) > 1:
        if difference.std <= ROUNDING * max(np.abs(x).max(), np.abs(y).max()):
            interval = (difference.mean, difference.mean)
        else:
            stats = require("scipy.stats", "train")
            error = difference.std / math.sqrt(len(seeds))
            low, high = stats.t.interval(CONFIDENCE, len(seeds) - 1, loc=difference.mean, scale=error)
            interval, p = (float(low), float(high)), float(stats.ttest_rel(y, x).pvalue)
    return Comparison(seeds, spread(x.tolist()), spread(y.tolist()), difference, interval, p)
