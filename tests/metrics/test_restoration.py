"""What an attack on the weights recovered, in numbers whose answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smd_research import metrics

LOSSES = st.lists(st.floats(0.5, 50), min_size=2, max_size=20)


def test_recovery_reads_as_the_formula_does() -> None:
    """Losses 6, 4 and 2: half of the way; 1 beyond it where the control stands at 3.5."""
    out, back, true = [12.0, 6.0], [8.0, 4.0], [4.0, 2.0]
    assert metrics.recovery(out, back, true).mean == pytest.approx(0.5)
    assert metrics.recovery([7.0, 3.5], back, true).mean == pytest.approx((3.5 - 4) / (3.5 - 2))


@given(LOSSES)
def test_the_ends_of_the_way_are_nothing_and_everything(true: list[float]) -> None:
    out = [value + 1 for value in true]
    nothing, everything = metrics.recovery(out, out, true), metrics.recovery(out, true, true)
    assert nothing.mean == pytest.approx(0, abs=1e-9)
    assert everything.mean == pytest.approx(1)
    assert everything.high - everything.low < 1e-6


def test_there_is_no_share_of_a_way_of_no_length() -> None:
    """A control that is already as good as the original says nothing of the attack, least of all a huge number."""
    assert metrics.recovery([2.0, 2.0], [1.0, 1.0], [2.0, 2.0]).n == 0
    assert metrics.recovery([1.0], [3.0], [2.0]).n == 0
    assert metrics.recovery([2.0000001], [1.0], [2.0]).n == 0, "rounding"


def test_the_interval_of_a_recovery_of_two_documents_is_that_of_the_ratio_estimator_by_hand() -> None:
    """Ways of 10 each, gone 4 and 6: half of it, errors -1 and 1, factor n / (n - 1) = 2."""
    found = metrics.recovery([20.0, 20.0], [16.0, 14.0], [10.0, 10.0])
    reach = stats.t.ppf(0.975, 1) * math.sqrt(2 * (1 + 1)) / 20
    assert (found.mean, found.n) == (0.5, 2)
    assert (found.low, found.high) == (pytest.approx(0.5 - reach), pytest.approx(0.5 + reach))
    # over ways of one length the ratio is a mean, whose interval has the same factor
    three = metrics.recovery([20.0] * 3, [16.0, 14.0, 11.0], [10.0] * 3)
    mean = metrics.aggregate([0.4, 0.6, 0.9])
    assert (three.low, three.high) == (pytest.approx(mean.low), pytest.approx(mean.high))
    alone = metrics.recovery([20.0], [16.0], [10.0])
    assert (alone.mean, alone.n) == (pytest.approx(0.4), 1)
    assert math.isnan(alone.low)


def test_the_interval_of_a_recovery_covers_its_expectation() -> None:
    """Documents of one ratio with noise: about 95 of 100 intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        whole = rng.uniform(5, 15, 30)
        back = 0.7 * whole + rng.normal(0, 2, 30)
        found = metrics.recovery(whole + 20, whole + 20 - back, np.full(30, 20.0))
        held += found.low <= 0.7 <= found.high
    assert 0.91 <= held / 400 <= 0.98


def test_weight_error_is_relative_to_what_is_secret() -> None:
    truth = torch.eye(3)
    exposed = truth - torch.diag(torch.tensor([1.0, 0, 0]))
    assert metrics.weight_error([(truth, truth, exposed)]) == 0
    assert metrics.weight_error([(exposed, truth, exposed)]) == 1
    assert metrics.weight_error([(exposed, truth, exposed), (truth, truth, exposed)]) == pytest.approx(0.5**0.5)
    assert math.isnan(metrics.weight_error([(truth, truth, truth)]))
