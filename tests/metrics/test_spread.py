import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from smd_research.metrics.spread import spread


def test_few_values_give_their_range() -> None:
    found = spread([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 5.0)


def test_nothing_and_one_value_have_no_interval() -> None:
    assert math.isnan(spread([]).median)
    assert spread([2.0, math.nan]).median == 2.0
    assert math.isnan(spread([2.0]).low)


def test_the_interval_holds_the_true_median_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 9, 20, 51):
        found = [spread(list(rng.exponential(size=n))) for _ in range(2000)]
        covered = np.mean([one.low <= math.log(2) <= one.high for one in found])
        assert 0.94 < covered < 0.995, n


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60))
def test_the_interval_contains_its_median_and_lies_among_the_values(values: list[float]) -> None:
    found = spread(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
