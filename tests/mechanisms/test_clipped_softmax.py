"""The clipped softmax keeps its epsilon for any two rows of logits, draws what it says, and never says never."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import chisquare

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.rewriting.clipped_softmax import ClippedSoftmax, LogitBounds

VOCAB, BARRED = 7, torch.tensor([0, 3])
POSSIBLE = [1, 2, 4, 5, 6]
LOGITS = arrays.arrays(np.float32, (2, VOCAB), elements=st.floats(-100, 100, width=32))


def softmax(epsilon: float, clipped: bool = True, low: float = -1.0, high: float = 4.0) -> ClippedSoftmax:
    return ClippedSoftmax(LogitBounds(low, high), epsilon, clipped, BARRED)


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.floats(0.01, 1000), st.floats(-20, 0), st.floats(0.1, 20))
def test_no_two_rows_of_logits_lie_further_apart_than_epsilon(
    logits: np.ndarray, epsilon: float, low: float, width: float
) -> None:
    one, other = softmax(epsilon, True, low, low + width).log_law(torch.from_numpy(logits))
    assert float((one - other)[POSSIBLE].abs().max()) <= epsilon * (1 + 1e-12) + 1e-12


@settings(max_examples=100, deadline=None)
@given(LOGITS, st.floats(0.01, 1000))
def test_every_token_that_is_not_barred_is_possible_whatever_the_logits(logits: np.ndarray, epsilon: float) -> None:
    law = softmax(epsilon).log_law(torch.from_numpy(logits))
    assert float(law[:, POSSIBLE].min()) >= -epsilon / 2 - np.log(VOCAB) - 1e-9
    assert torch.isinf(law[:, BARRED]).all()
    torch.testing.assert_close(law.exp().sum(-1), torch.ones(2, dtype=torch.float64))


def test_the_bound_is_nearly_reached() -> None:
    """A claim of half of it would be refuted: the factor two is needed."""
    logits = torch.full((2, 2001), -1.0)
    logits[0, 0], logits[1, 1:] = 4.0, 4.0
    law = ClippedSoftmax(LogitBounds(-1.0, 4.0), 40.0, True, torch.tensor([], dtype=torch.long)).log_law(logits)
    assert float((law[0] - law[1]).abs().max()) > 27


def test_a_temperature_alone_keeps_no_promise() -> None:
    logits = torch.tensor([[-9.0, 30.0, -40.0, 0.0, 1.0, 2.0, 3.0], [-9.0, -40.0, 30.0, 0.0, 1.0, 2.0, 3.0]])
    one, other = softmax(10.0, clipped=False).log_law(logits)
    assert float((one - other)[POSSIBLE].abs().max()) > 10.0
    assert softmax(10.0, clipped=False).guarantee("", "", "") is None


def test_probabilities_are_no_exact_zeros_where_single_precision_has_none_left() -> None:
    logits = torch.tensor([[-1.0, 4.0, -1.0, 0.0, -1.0, -1.0, -1.0]])
    law = softmax(400.0).log_law(logits)
    assert float(torch.softmax(logits / softmax(400.0).temperature, -1)[0, 2]) == 0.0
    assert law.dtype == torch.float64
    assert -201 < float(law[0, 2]) < -199
    assert float(law[0, 2].exp()) > 0


def test_what_is_drawn_follows_the_law_and_is_never_barred() -> None:
    logits, made = torch.tensor([[9.0, 0.5, 1.0, 9.0, 2.0, 3.0, 8.0]]), softmax(4.0)
    drawn = made.draw(logits.expand(20000, -1), np.random.default_rng(0)).numpy()
    assert not np.isin(drawn, BARRED).any()
    law = made.log_law(logits)[0, POSSIBLE].exp().numpy()
    assert chisquare(np.bincount(drawn, minlength=VOCAB)[POSSIBLE], law * len(drawn)).pvalue > 1e-3


class _Last(np.random.Generator):
    """Draws the largest number below one."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def random(self, *_: object, **__: object) -> np.ndarray:  # type: ignore[override]
        return np.full(1, 1 - 2**-53)


def test_the_last_draw_is_a_token_that_there_is() -> None:
    made = ClippedSoftmax(LogitBounds(-1.0, 4.0), 4.0, True, torch.tensor([5, 6]))
    assert made.draw(torch.zeros(1, VOCAB), _Last()).tolist() == [4]


def test_the_promise_says_what_a_text_costs() -> None:
    promise = softmax(8.0).guarantee("any text", "a paper", "a test")
    assert promise is not None
    assert (promise.unit, promise.epsilon, promise.unit_epsilon, promise.sensitivity) == (
        "written token",
        8.0,
        8.0,
        5.0,
    )
    assert promise.of_text(10) == 80.0
    assert "n*8" in str(promise)
    assert "whatever the text" in promise.support


def test_bounds_are_quantiles_of_public_logits() -> None:
    """Nearly all of what a model gives to a place is noise; half of the places have a larger favourite."""
    logits = torch.zeros(5, 100)
    logits[:, :4] = torch.tensor([3.0, 4.0, 6.0, 7.0, 9.0])[:, None]
    found = LogitBounds.of_public(logits)
    assert (found.low, found.high) == (0.0, 6.0)
    assert found.width == 6.0


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(2.0, 1.0, "lies above"), (1.0, 1.0, "zero width"), (float("nan"), 1.0, "finite"), (0.0, float("inf"), "finite")],
)
def test_bounds_that_are_none_are_refused(low: float, high: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LogitBounds(low, high)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_an_epsilon_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="positive and finite"):
        softmax(epsilon)
