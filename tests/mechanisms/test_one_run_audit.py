"""The audit from one run refutes a mechanism that promises too much, and hardly ever one that keeps its promise."""

import numpy as np
import pytest
from scipy.stats import binom

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.privacy.one_run_audit import (
    audit_canaries,
    epsilon_at_least,
    most_measurable,
    one_run_p_value,
)
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse


def answered(n: int, epsilon: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coins, and what the strongest mechanism of this epsilon shows of them: each by randomised response."""
    coins = rng.random(n) < 0.5
    kept = rng.random(n) < RandomisedResponse(epsilon, 2).keep
    return coins, np.where(kept, coins, ~coins) + 0.1 * rng.random(n)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_a_true_promise_is_refuted_in_at_most_five_of_a_hundred_games(epsilon: float) -> None:
    rng = np.random.default_rng(0)
    bounds = [audit_canaries(*answered(256, epsilon, rng), epsilon, 0.0).measured for _ in range(200)]
    assert np.mean(np.array(bounds) > epsilon) <= 0.05
    assert np.median(bounds) > epsilon / 3, "and the bound is not idle"


def test_a_promise_that_is_not_kept_is_refuted() -> None:
    audit = audit_canaries(*answered(1000, 3.0, np.random.default_rng(1)), 1.0, 1e-5)
    assert not audit.holds
    assert 2.0 < audit.measured < 3.0
    assert audit.n == 1000
    assert 0.8 < audit.advantage_low < audit.advantage < audit.advantage_high


def test_scores_that_know_nothing_give_nothing() -> None:
    rng = np.random.default_rng(2)
    audit = audit_canaries(rng.random(400) < 0.5, rng.random(400), 0.5, 1e-5)
    assert audit.holds
    assert audit.measured < 0.3
    assert audit.advantage_low < 0 < audit.advantage_high


def test_a_model_that_tells_some_canaries_for_sure_is_found_out_by_abstaining() -> None:
    rng = np.random.default_rng(3)
    coins, scores = rng.random(512) < 0.5, rng.random(512)
    scores[:64] = np.where(coins[:64], 2, -2)
    audit = audit_canaries(coins, scores, 1.0, 0.0)
    assert audit.guesses < 512
    assert audit.right == audit.guesses
    assert not audit.holds


def test_without_delta_the_bound_is_that_of_a_binomial() -> None:
    chance = np.exp(1.0) / (1 + np.exp(1.0))
    assert one_run_p_value(100, 80, 70, 1.0, 0.0) == pytest.approx(binom.sf(69, 80, chance))
    assert epsilon_at_least(20, 20, 20, 0.0, 0.05) == pytest.approx(-np.log(0.05 ** (-1 / 20) - 1))
    assert epsilon_at_least(20, 20, 10, 0.0, 0.05) == 0


def test_delta_only_weakens() -> None:
    plain, slack, more = (one_run_p_value(100, 80, 75, 1.0, delta) for delta in (0.0, 1e-5, 1e-3))
    assert plain < slack < more
    assert one_run_p_value(10, 10, 10, 1.0, 0.5) == 1


def test_a_game_that_is_won_every_time_measures_its_ceiling() -> None:
    coins = np.random.default_rng(4).permutation(np.arange(512) < 256)
    for delta in (0.0, 1e-6, 1e-3):
        audit = audit_canaries(coins, coins.astype(float), 1.0, delta)
        assert audit.measured == pytest.approx(audit.ceiling)
        assert audit.ceiling == most_measurable(512, delta)


def test_a_delta_near_one_in_as_many_canaries_leaves_nothing_to_refute() -> None:
    """A kept promise may then tell 128 of 512 at once in one run of 120, which a careful bound must allow for."""
    assert most_measurable(512, 512**-1.1) < 1.4
    assert 4.5 < most_measurable(512, 1e-6) <= most_measurable(512, 0.0)
    assert most_measurable(2048, 1e-6) > most_measurable(512, 1e-6)


def test_what_makes_no_audit_is_refused() -> None:
    with pytest.raises(ConfigError, match="16 or more"):
        audit_canaries([True] * 8, [0.0] * 8, 1.0, 0.0)
    with pytest.raises(ConfigError, match="20 canaries, 19 scores"):
        audit_canaries([True] * 20, [0.0] * 19, 1.0, 0.0)
    with pytest.raises(ConfigError, match="confidence"):
        audit_canaries([True] * 20, [0.0] * 20, 1.0, 0.0, confidence=1.0)
