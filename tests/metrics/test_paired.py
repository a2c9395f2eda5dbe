"""The mean of paired differences: it covers, is McNemar's test of hits and misses, and takes no side."""

import math
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from smd_research.metrics import PairedMean, Scale, paired_mean

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
DIFFERENCES = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=12)
SHARES: dict[str, tuple[float, Draw]] = {
    "as many up as down": (0.0, lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.8, 0.1])),
    "more up than down": (0.2, lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.6, 0.3])),
    "few, and all up": (0.02, lambda rng, n: rng.choice([0.0, 1.0], n, p=[0.98, 0.02])),
    "nearly all up": (0.8, lambda rng, n: rng.choice([-1.0, 1.0], n, p=[0.1, 0.9])),
    "of two Beta shares": (2 / 3 - 2 / 7, lambda rng, n: rng.beta(4, 2, n) - rng.beta(2, 5, n)),
    "of all or nothing": (0.45, lambda rng, n: rng.beta(0.1, 0.1, n) - rng.beta(0.05, 0.95, n)),
}
AMOUNTS: dict[str, tuple[float, Draw]] = {
    "normal": (0.3, lambda rng, n: rng.normal(0.3, 1, n)),
    "of two exponential times": (0.5, lambda rng, n: rng.exponential(1, n) - rng.exponential(0.5, n)),
}


def covered(truth: float, draw: Draw, n: int, scale: Scale, times: int) -> float:
    rng, known, hits = np.random.default_rng(0), dict[bytes, PairedMean](), 0
    for _ in range(times):
        values = np.sort(draw(rng, n))
        key = values.tobytes()
        if key not in known:
            known[key] = paired_mean(list(values), scale)
        hits += known[key].low - 1e-9 <= truth <= known[key].high + 1e-9
    return hits / times


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20, 100])
@pytest.mark.parametrize("law", SHARES)
def test_it_covers_the_mean_of_shares(law: str, n: int) -> None:
    times = 300 if n < 100 else 100
    # 0.94 but for three standard errors of as many draws; docs/reading-results.md has the figures of a thousand.
    assert covered(*SHARES[law], n, "rate", times) >= 0.94 - 3 * (0.94 * 0.06 / times) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("law", AMOUNTS)
def test_it_covers_the_mean_of_amounts_that_are_not_too_skew(law: str, n: int) -> None:
    assert covered(*AMOUNTS[law], n, "positive", 100) >= 0.93 - 3 * (0.93 * 0.07 / 100) ** 0.5


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_of_hits_and_misses_it_is_mcnemars_exact_test(up: int, down: int, equal: int) -> None:
    if not up + down + equal:
        return
    found = paired_mean([1.0] * up + [-1.0] * down + [0.0] * equal, "rate")
    exact = stats.binomtest(up, up + down).pvalue if up + down else 1.0
    assert found.p == pytest.approx(exact, rel=1e-9)
    # The interval says the same as the test: it lies on one side of 0 where that is below 0.05.
    if abs(found.p - 0.05) > 1e-4:
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 20))
def test_what_is_nearly_hits_and_misses_is_nearly_the_same(up: int, down: int, equal: int) -> None:
    """The quadrature, which is asked as soon as one value is neither, agrees with the binomial sum."""
    found = paired_mean([1.0] * (up - 1) + [1 - 1e-9] + [-1.0] * down + [0.0] * equal, "rate")
    assert found.p == pytest.approx(stats.binomtest(up, up + down).pvalue, abs=1e-4)


@given(DIFFERENCES, st.sampled_from(["rate", "excess", "positive", "linear", "log"]), st.randoms())
@settings(max_examples=40, deadline=None)
def test_neither_the_order_nor_the_side_counts(
    values: list[float], scale: Scale, random: "np.random.Generator"
) -> None:
    found = paired_mean(values, scale)
    shuffled = list(values)
    random.shuffle(shuffled)
    assert astuple(paired_mean(shuffled, scale)) == pytest.approx(astuple(found), nan_ok=True)
    turned = paired_mean([-value for value in values], scale)
    mirrored = (-found.value, -found.high, -found.low, found.n, found.below, found.above)
    assert astuple(turned) == pytest.approx(mirrored, abs=1e-6, nan_ok=True)
    assert turned.p == pytest.approx(found.p, abs=1e-6)


@given(DIFFERENCES.filter(lambda values: len(values) > 1))
@settings(max_examples=40, deadline=None)
def test_the_mean_lies_in_its_interval_and_inside_the_range(values: list[float]) -> None:
    for scale, reach in (("rate", 1.0), ("linear", math.inf)):
        found = paired_mean(values, scale)  # type: ignore[arg-type]
        assert -reach <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= reach
        assert 0 <= found.p <= 1


def test_amounts_of_which_there_is_nothing_to_doubt() -> None:
    assert astuple(paired_mean([2.0, 2.0, 2.0], "positive")) == (2.0, 2.0, 2.0, 3, 0.0, 1.0)
    assert paired_mean([0.0, 0.0], "positive").p == 1
    single = paired_mean([2.0], "positive")
    assert (single.value, single.p) == (2.0, 1.0)
    assert math.isnan(single.low)


def test_a_difference_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one difference"):
        paired_mean([], "rate")
    with pytest.raises(ValueError, match="excess"):
        paired_mean([1.5], "rate")
    assert paired_mean([1.5, 2.0], "excess").value == 1.75


def test_two_amounts_bound_nothing() -> None:
    found = paired_mean([0.0, 1.0], "positive")
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.p > 0.4
