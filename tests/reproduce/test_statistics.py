"""Mean, spread, paired difference, interval and p-value, against values worked out by hand."""

import math

import pytest

from stlora_kernels.reproduce.statistics import compare, spread


def test_spread_divides_by_one_less_than_the_runs():
    assert spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7.0), 3))


def test_one_run_has_no_spread_and_none_has_no_mean():
    assert spread([4.0])[0::2] == (4.0, 1)
    assert math.isnan(spread([4.0]).std)
    assert math.isnan(spread([]).mean)


def test_paired_difference_by_hand():
    # Differences -1, -2, -3: mean -2, std 1, standard error 1/sqrt(3); t(2, 97.5 %) = 4.302653.
    found = compare({0: 10.0, 1: 20.0, 2: 30.0}, {0: 9.0, 1: 18.0, 2: 27.0})
    assert found.seeds == (0, 1, 2)
    assert found.difference == pytest.approx((-2.0, 1.0, 3))
    half = 4.302652729911275 / math.sqrt(3)
    assert found.interval == pytest.approx((-2 - half, -2 + half))
    # Of the t-distribution with 2 degrees of freedom, P(|T| > t) = 1 - t / sqrt(2 + t^2), here t = 2 sqrt(3).
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_the_interval_leaves_out_zero_exactly_where_p_is_below_5_percent():
    plain = {seed: 20.0 + math.sin(seed) for seed in range(5)}
    for shift in (-1.0, -0.1, 0.01, 0.5):
        found = compare(plain, {seed: value + shift + 0.3 * math.cos(3 * seed) for seed, value in plain.items()})
        assert (found.interval[0] <= 0 <= found.interval[1]) == (found.p > 0.05)


def test_only_seeds_with_both_runs_count():
    found = compare({0: 1.0, 1: 2.0, 3: 50.0}, {1: 3.0, 0: 1.5, 2: 70.0})
    assert found.seeds == (0, 1)
    assert found.plain.mean == 1.5
    assert found.difference.mean == 0.75


def test_a_single_pair_has_a_difference_and_no_interval():
    found = compare({0: 10.0}, {0: 9.5})
    assert found.difference.mean == -0.5
    assert all(map(math.isnan, (*found.interval, found.p, found.difference.std)))


def test_without_a_pair_each_side_stands_alone():
    found = compare({0: 10.0, 1: 12.0}, {})
    assert found.seeds == ()
    assert found.plain.mean == 11.0
    assert math.isnan(found.difference.mean)
    assert math.isnan(found.p)


@pytest.mark.parametrize("shift", [0.0, -0.1], ids=["identical", "shifted-alike"])
@pytest.mark.filterwarnings("error")
def test_differences_without_spread_have_no_p(shift):
    plain = {0: 10.3, 1: 11.7, 2: 9.1}
    found = compare(plain, {seed: value + shift for seed, value in plain.items()})
    assert found.interval == pytest.approx((shift, shift))
    assert math.isnan(found.p)


def test_an_undefined_error_counts_as_no_run():
    assert compare({0: 1.0, 1: math.nan}, {0: 2.0, 1: 3.0}).seeds == (0,)
