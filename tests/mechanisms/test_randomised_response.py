"""Randomised response of labels keeps its bound exactly and is drawn by its law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse, audit_response


@given(epsilon=st.floats(0.01, 500), classes=st.integers(2, 12))
def test_the_bound_is_reached_and_never_passed(epsilon: float, classes: int) -> None:
    law = RandomisedResponse(epsilon, classes).probabilities
    assert np.allclose(law.sum(1), 1)
    assert (law > 0).all()
    ratios = (np.log(law[:, None]) - np.log(law[None])).max()
    assert audit_response(RandomisedResponse(epsilon, classes)).holds
    assert ratios == pytest.approx(epsilon, rel=1e-6)
    keep = 1 / (1 + (classes - 1) * np.exp(-epsilon))
    assert np.allclose(np.diag(law), keep)


def test_draws_follow_the_law() -> None:
    response, rng = RandomisedResponse(1.0, 4), np.random.default_rng(0)
    drawn = np.bincount([response.sample(2, rng) for _ in range(8000)], minlength=4) / 8000
    assert np.abs(drawn - response.probabilities[2]).max() < 0.02


def test_what_is_promised() -> None:
    promise = RandomisedResponse(2.0, 6).guarantee()
    assert (promise.unit, promise.epsilon, promise.of_text(3)) == ("label", 2.0, 6.0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        RandomisedResponse(0.0, 2)
    with pytest.raises(ConfigError, match="positive and finite"):
        RandomisedResponse(np.inf, 2)
    with pytest.raises(ConfigError, match="two classes or more"):
        RandomisedResponse(1.0, 0)
