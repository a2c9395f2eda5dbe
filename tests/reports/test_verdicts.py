import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smd_research.metrics.interval import bounded_interval
from smd_research.reports.verdicts import (
    Amount,
    Comparison,
    Judgement,
    all_hold,
    combination,
    difference,
    holm,
    quotient,
    some_hold,
)

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (Amount(0.97, 0.95, 0.99), Judgement.HOLDS),
        (Amount(0.97, 0.94, 0.99), Judgement.UNDECIDED),
        (Amount(0.90, 0.85, 0.96), Judgement.UNDECIDED),
        (Amount(0.90, 0.85, 0.94), Judgement.DOES_NOT),
        (Amount(1.0, 0.96, 1.0), Judgement.HOLDS),
        (Amount(1.0, 0.83, 1.0), Judgement.UNDECIDED),
        (Amount(0.95), Judgement.HOLDS),
        (Amount(0.949), Judgement.DOES_NOT),
    ],
)
def test_one_figure_is_judged_by_its_interval(amount: Amount, expected: Judgement) -> None:
    assert all_hold([Comparison(amount, 0.95, 1.0)]) is expected
    assert some_hold([Comparison(amount, 0.95, 1.0)]) is expected


@given(PROBABILITIES)
def test_holm_lies_between_each_alone_and_bonferroni(probabilities: list[float]) -> None:
    adjusted = holm(probabilities)
    for p, q in zip(probabilities, adjusted, strict=True):
        assert p - 1e-12 <= q <= min(1.0, p * len(probabilities)) + 1e-12
    expected = stats.rankdata(probabilities, "ordinal").argsort()
    assert np.all(np.diff(np.array(adjusted)[expected]) >= 0)


def test_holm_is_its_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_difference_of_normal_means_has_the_interval_of_independent_errors() -> None:
    found = difference(Amount(3.0, 2.0, 4.0), Amount(1.0, 0.5, 1.5))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2 - math.hypot(1, 0.5), 2 + math.hypot(1, 0.5)))
    turned = combination([(-2.0, Amount(1.0, 0.9, 1.3))])
    assert (turned.low, turned.high) == pytest.approx((-2.6, -1.8))


def test_a_ratio_to_an_exact_figure_keeps_its_interval() -> None:
    found = quotient(Amount(3.0, 2.0, 4.0), Amount(2.0))
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.0, 2.0))
    assert quotient(Amount(0.0, 0.0, 0.2), Amount(2.0)).high == pytest.approx(0.1)


def test_a_true_statement_about_many_cells_is_rarely_refuted() -> None:
    """Twelve cells exactly at their bound: without the correction one in four such claims would be refuted."""
    rng = np.random.default_rng(0)
    refuted = alone = 0
    for _ in range(200):
        rates = [rng.random(40) < 0.3 for _ in range(12)]
        cells = [Comparison(Amount(float(hits.mean()), *bounded_interval(hits)), high=0.3) for hits in rates]
        refuted += all_hold(cells) is Judgement.DOES_NOT
        alone += any(all_hold([cell]) is Judgement.DOES_NOT for cell in cells)
    assert refuted <= 10 < 15 < alone
