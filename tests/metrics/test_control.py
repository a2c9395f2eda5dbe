import math

import pytest

from smd_research.data.prompts import TokenSpan
from smd_research.metrics.control import Answered, controls


def answered(ids: tuple[int, ...], source: str) -> Answered:
    return Answered(ids, ids, (TokenSpan(1, 3, "name"),), source)


def test_the_control_is_the_mean_over_all_other_prompts_of_the_same_source_and_length() -> None:
    answers = [
        answered((0, 1, 2, 3), "letters"),
        answered((0, 1, 2, 9), "letters"),
        answered((0, 7, 7, 3), "letters"),
        answered((0, 1, 2, 3), "notes"),
        answered((0, 1, 2), "letters"),
    ]
    found = controls(answers, special_ids={0})
    assert found[0]["control_token_accuracy"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found[0]["control_span_exact"] == pytest.approx(1 / 2), "the second holds the same name, the third another"
    assert found[0]["excess_token_accuracy"] == pytest.approx(1 - 1 / 2)
    assert found[2]["control_token_accuracy"] == pytest.approx((1 / 3 + 0) / 2)
    assert all(math.isnan(value) for one in found[3:] for value in one.values()), "alone of its source, or its length"
