"""The interval of a bounded mean: it covers, is no wider than it must be, and moves as the data do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from smd_research.metrics.interval import bounded_interval, clopper_pearson

Draws = NDArray[np.float64]
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
LAWS = {
    "bernoulli 0.01": (0.01, lambda rng, n: rng.binomial(1, 0.01, n)),
    "bernoulli 0.1": (0.1, lambda rng, n: rng.binomial(1, 0.1, n)),
    "bernoulli 0.5": (0.5, lambda rng, n: rng.binomial(1, 0.5, n)),
    "bernoulli 0.99": (0.99, lambda rng, n: rng.binomial(1, 0.99, n)),
    "beta 1, 1": (0.5, lambda rng, n: rng.beta(1, 1, n)),
    "beta 0.05, 0.95": (0.05, lambda rng, n: rng.beta(0.05, 0.95, n)),
    "beta 20, 20": (0.5, lambda rng, n: rng.beta(20, 20, n)),
    "tokens of prompts, correlation 0.1": (0.3, lambda rng, n: rng.binomial(16, rng.beta(2.7, 6.3, n)) / 16),
    "tokens of prompts, correlation 0.5": (0.05, lambda rng, n: rng.binomial(16, rng.beta(0.05, 0.95, n)) / 16),
}


@pytest.mark.parametrize("n", [5, 10, 20, 100])
@pytest.mark.parametrize("law", LAWS)
def test_it_covers_at_a_width_that_is_at_most_half_more_than_clopper_and_pearsons(law: str, n: int) -> None:
    truth, draw = LAWS[law]
    rng, covered, widths, exact = np.random.default_rng(0), 0, 0.0, 0.0
    draws = [np.sort(np.asarray(draw(rng, n), dtype=np.float64)) for _ in range(300 if n < 100 else 80)]
    known: dict[bytes, tuple[float, float]] = {}
    for values in draws:
        low, high = known.setdefault(values.tobytes(), bounded_interval(values))
        bottom, top = clopper_pearson(float(values.sum()), n)
        covered += low <= truth <= high
        widths, exact = widths + high - low, exact + top - bottom
    # 0.94 but for three standard errors of as many draws; docs/reading-results.md has the figures of some thousand.
    assert covered / len(draws) >= 0.94 - 3 * (0.94 * 0.06 / len(draws)) ** 0.5
    assert widths <= 1.001 * exact


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (1, 20), (7, 20), (20, 20), (99, 100)])
def test_of_hits_and_misses_it_is_clopper_and_pearsons(hits: int, n: int) -> None:
    values = [1.0] * hits + [0.0] * (n - hits)
    exact = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert bounded_interval(values) == clopper_pearson(hits, n) == pytest.approx((exact.low, exact.high))
    # The quadrature, which is not asked where all values are 0 or 1, gives the same.
    assert bounded_interval([7 * value for value in values], [7.0] * n) == pytest.approx(
        clopper_pearson(hits, n), abs=1e-5
    )


def test_ends_are_exact() -> None:
    assert bounded_interval([]) == (0, 1)
    assert bounded_interval([0.0] * 20) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert bounded_interval([1.0] * 20) == (pytest.approx(0.025 ** (1 / 20)), 1)
    assert bounded_interval([0.0] * 20)[1] < bounded_interval([0.5] + [0.0] * 19)[1] < 0.2


@settings(max_examples=100, deadline=None)
@given(values=SHARES, which=st.integers(0, 11), to=st.floats(0, 1))
def test_a_larger_value_lowers_no_bound(values: list[float], which: int, to: float) -> None:
    raised = list(values)
    raised[which % len(raised)] = max(raised[which % len(raised)], to)
    before, after = bounded_interval(values), bounded_interval(raised)
    assert after[0] >= before[0] - 1e-5
    assert after[1] >= before[1] - 1e-5
    assert 0 <= before[0] <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= before[1] <= 1


@settings(max_examples=50, deadline=None)
@given(values=SHARES)
def test_it_is_a_quantile_of_dirichlet_means_and_mirrors(values: list[float]) -> None:
    low, high = bounded_interval(values)
    mirrored = bounded_interval([1 - value for value in values])
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)
    weights = np.random.default_rng(0).dirichlet(np.ones(len(values) + 1), 20_000)
    share = (weights @ [*values, 1.0] <= high).mean()
    assert share == pytest.approx(0.975, abs=0.006) or high == 1


def test_a_ratio_weighs_texts_by_their_length() -> None:
    hits, counts = [3.0, 0.0, 40.0, 5.0], [10.0, 5.0, 80.0, 9.0]
    low, high = bounded_interval(hits, counts)
    assert low < sum(hits) / sum(counts) < high
    equal = bounded_interval([2.0, 5.0, 0.0], [10.0, 10.0, 10.0])
    assert equal == pytest.approx(bounded_interval([0.2, 0.5, 0.0]), abs=1e-6)


@pytest.mark.parametrize(("values", "counts"), [([1.2], None), ([-0.1], None), ([3.0], [2.0])])
def test_what_is_no_share_is_refused(values: list[float], counts: list[float] | None) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bounded_interval(values, counts)
