import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.core.seeds import generator
from smd_research.metrics import greedy_equal, kl, logit_error, negative_log_likelihood


def logits(seed: int, rows: int = 6, width: int = 11) -> Tensor:
    return torch.from_numpy(generator(seed, "logits").standard_normal((rows, width), dtype="float32"))


def test_the_same_logits_differ_in_nothing() -> None:
    x = logits(0)
    assert (kl(x, x), greedy_equal(x, x), logit_error(x, x)) == (0, 1, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_kl_is_the_sum_over_the_vocabulary(seed: int) -> None:
    x, y = logits(seed), logits(seed + 1)
    p, q = x.double().softmax(-1), y.double().softmax(-1)
    assert kl(x, y) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()))
    assert kl(x, x + 3.0) == pytest.approx(0, abs=1e-9)


def test_kl_has_a_direction() -> None:
    assert kl(torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]])) < kl(
        torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 9.0]])
    )


def test_ties_count_as_equal_only_when_asked() -> None:
    x, y = torch.tensor([[1.0, 1.0 - 1e-6], [2.0, 0.0]]), torch.tensor([[1.0, 1.1], [2.0, 0.0]])
    assert greedy_equal(x, y) == 0.5
    assert greedy_equal(x, y, tie_gap=1e-5) == 1


def test_logit_error_is_relative_to_the_largest_logit() -> None:
    x = torch.tensor([[1.0, -4.0], [2.0, 0.0]])
    assert logit_error(x, x + torch.tensor([[0.0, 0.4], [0.0, -0.1]])) == pytest.approx(0.1)


def test_likelihood_of_even_odds() -> None:
    assert negative_log_likelihood(torch.zeros(3, 4), torch.tensor([0, 1, 2])) == pytest.approx(3 * math.log(4))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="logits"):
        kl(logits(0), logits(0, rows=5))
    assert math.isnan(kl(logits(0, rows=0), logits(0, rows=0)))
