"""The audit of a training from one run (Steinke, Nasr and Jagielski, NeurIPS 2023, arXiv 2305.08846).

Many canaries are put in or left out, each by a coin of its own; who sees the result guesses the coins, and may abstain.
Under epsilon-DP the number of right guesses among ``r`` is at most what ``r`` coins of probability
``e^epsilon / (1 + e^epsilon)`` give, so that more of them refute every smaller epsilon.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import beta, binom

from smd_research.core.errors import ConfigError

GUESSED = ((1 / 16, 1 / 16), (1 / 8, 1 / 8), (1 / 4, 1 / 4), (1 / 2, 1 / 2), (0, 1 / 8), (0, 1 / 4))
"""Shares of the canaries that are guessed to be in, and to be out; the error is shared out among these ways.

Of a canary with a class, a model may be right that never saw it: then only those it is wrong about tell anything.
"""
FEWEST = 16
"""Canaries of an audit."""
_LARGEST = 50.0  # epsilon beyond which nothing is measured


@dataclass(frozen=True)
class CanaryAudit:
    """What guessing canaries says of a promise.

    Attributes:
        claimed: the epsilon that is promised; infinite where nothing is.
        delta: beside it.
        measured: epsilon is at least this much, with the confidence.
        confidence: probability that ``measured`` is a lower end.
        n: canaries.
        guesses: those that were guessed where the bound is best; of the others the auditor abstained.
        right: guesses that were right.
        advantage: of an attacker who guesses all: share right minus share wrong.
        advantage_low: lower end of its 95 % interval.
        advantage_high: upper end.
        ceiling: what guesses that are all right would have measured: no claim from there on can be refuted.
    """

    claimed: float
    delta: float
    measured: float
    confidence: float
    n: int
    guesses: int
    right: int
    advantage: float
    advantage_low: float
    advantage_high: float
    ceiling: float

    @property
    def holds(self) -> bool:
        """False where the claim is refuted; True says that nothing was found against it."""
        return self.measured <= self.claimed


def audit_canaries(
    included: npt.ArrayLike, scores: npt.ArrayLike, claimed: float, delta: float, confidence: float = 0.95
) -> CanaryAudit:
    """Guess the canaries of highest score to be in and those of lowest to be out, and bound epsilon by what was right.

    Args:
        included: whether each canary was in ``[m]``, decided by fair coins of their own.
        scores: of each ``[m]``, higher where it looks as if it had been trained on; no function of ``included``.
        claimed: the epsilon that is promised.
        delta: beside it.
        confidence: of the bound.

    Raises:
        ConfigError: for fewer than 16 canaries, scores that do not match, or a value out of range.
    """
    truth, order = np.asarray(included, dtype=bool), np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    n = len(truth)
    if n < FEWEST or len(order) != n:
        raise ConfigError(
            f"an audit by canaries needs {FEWEST} or more, each with a score: {n} canaries, {len(order)} scores"
        )
    if not 0 < confidence < 1 or not 0 <= delta < 1:
        raise ConfigError("an audit by canaries: confidence lies between 0 and 1, delta from 0 to below 1")
    best = (0.0, 0, 0)
    for inside, outside in GUESSED:
        top, bottom = int(n * inside), int(n * outside)
        right = int(truth[order[:top]].sum() + (~truth[order[n - bottom :]]).sum())
        found = epsilon_at_least(n, top + bottom, right, delta, (1 - confidence) / len(GUESSED))
        best = max(best, (found, top + bottom, right))
    half = n // 2
    right = int(truth[order[:half]].sum() + (~truth[order[half:]]).sum())
    low, high = (2 * end - 1 for end in _proportion(right, n))
    measured, guesses, hits = best
    ceiling = most_measurable(n, delta, confidence)
    return CanaryAudit(claimed, delta, measured, confidence, n, guesses, hits, 2 * right / n - 1, low, high, ceiling)


@cache
def most_measurable(canaries: int, delta: float, confidence: float = 0.95) -> float:
    """Epsilon that guesses that are all right would measure: no game of so many canaries refutes a larger claim.

    A delta near one in as many canaries leaves hardly anything to measure, whatever the model tells.

    Args:
        canaries: how many.
        delta: of the promise.
        confidence: of the bound.
    """
    guesses = (int(canaries * inside) + int(canaries * outside) for inside, outside in GUESSED)
    return max(epsilon_at_least(canaries, n, n, delta, (1 - confidence) / len(GUESSED)) for n in guesses)


def epsilon_at_least(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """The largest epsilon that so many right guesses refute; 0 where they refute none.

    Args:
        canaries: all that there were.
        guesses: those that were guessed.
        right: guesses that were right.
        delta: of the promise.
        error: probability of refuting what is true.
    """
    if one_run_p_value(canaries, guesses, right, 0.0, delta) >= error:
        return 0.0
    if one_run_p_value(canaries, guesses, right, _LARGEST, delta) < error:
        return _LARGEST
    return float(
        brentq(
            lambda epsilon: one_run_p_value(canaries, guesses, right, epsilon, delta) - error, 0, _LARGEST, xtol=1e-9
        )
    )


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of so many right guesses or more under ``(epsilon, delta)``-DP (Theorem 5.2 there).

    Args:
        canaries: ``m``.
        guesses: ``r``, at most ``m``.
        right: ``v``, at most ``r``.
        epsilon: of the promise.
        delta: of the promise; each canary that fails it shifts the count, at worst where that helps most.
    """
    chance = float(expit(epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    if not delta or not right:
        return min(tail, 1.0)
    before = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, chance))
    shift = float((before / np.arange(1, right + 1)).max())
    return min(tail + 2 * canaries * delta * shift, 1.0)


def _proportion(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval."""
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))
    return low, high
