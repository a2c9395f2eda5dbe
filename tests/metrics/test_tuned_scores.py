"""F1 and running shares against their definitions."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchmetrics.functional.classification import multiclass_f1_score

from smd_research.metrics import f1_macro, running_share

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(pairs=PAIRS)
@settings(max_examples=30, deadline=None)
def test_f1_is_the_mean_over_classes_that_occur(pairs: list[tuple[int, int]]) -> None:
    truth, told = map(list, zip(*pairs, strict=True))
    found = f1_macro(truth, told, 4)
    each = multiclass_f1_score(tensor(told), tensor(truth), num_classes=4, average="none")
    assert found.mean == pytest.approx(float(each[sorted(set(truth))].mean()), abs=1e-6)
    assert found.n == len(pairs)
    assert 0 <= found.low <= found.high <= 1


def test_f1_interval_narrows_with_more_texts() -> None:
    few, many = (f1_macro([0, 0, 1, 1, 0] * n, [0, 1, 1, 1, 0] * n, 2) for n in (4, 100))
    assert few.mean == pytest.approx(many.mean)
    assert many.high - many.low < (few.high - few.low) / 3
    assert math.isnan(f1_macro([], [], 2).mean)


def test_a_running_share_weighs_texts_by_what_they_count() -> None:
    found = running_share([0, 9, 1], [1, 9, 10])
    assert found.mean == 0.5
    assert found.low < 0.5 < found.high
    assert running_share([1, 0], [2, 0]).n == 1
    assert math.isnan(running_share([], []).mean)
