"""How much of a model came back: losses on held-out text, and what an attack recovered beside two yardsticks.

Likelihoods are summed and negative, in nats, one a document, of the same documents throughout (torch is imported where
it computes).
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from smd_research.metrics.estimate import LEVEL, Estimate, perplexity

if TYPE_CHECKING:
    from torch import Tensor


def loss(nll: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Mean loss in nats a token, its interval taken over documents."""
    found = perplexity(nll, tokens)
    return Estimate(math.log(found.mean), math.log(found.low), math.log(found.high), found.n)


def recovery(reference: Sequence[float], attack: Sequence[float], original: Sequence[float]) -> Estimate:
    """Share of the way from a reference to the original model that an attack went.

    ``(L_reference - L_attack) / (L_reference - L_original)``. With the exposed part as reference it flatters an attack;
    with a model trained from scratch on equal data and steps, a value at or below zero means that nothing was stolen.

    Args:
        reference: of each document.
        attack: of each document.
        original: of each document.

    Returns:
        The ratio of the two sums, with the interval of the ratio estimator over documents; NaN with ``n = 0`` where the
        reference is no worse than the original, so that there is no way to go.
    """
    gone = np.subtract(reference, attack)
    whole = np.subtract(reference, original)
    n = len(whole)
    # Equal models differ by rounding: a way of that length is none.
    if n == 0 or whole.sum() <= 1e-6 * np.sum(original):
        return Estimate(math.nan, n=0)
    share = float(gone.sum() / whole.sum())
    if n == 1:
        return Estimate(share)
    spread = math.sqrt(n / (n - 1) * float(((gone - share * whole) ** 2).sum())) / float(whole.sum())
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * spread
    return Estimate(share, share - reach, share + reach, n)


def weight_error(matrices: Iterable[tuple["Tensor", "Tensor", "Tensor"]]) -> float:
    """Relative error of the secret part over all protected matrices: 0 is exact, 1 what leaving it out gives.

    ``||W_guess - W|| / ||W - W_exposed||``, Frobenius norms over all matrices together.

    Args:
        matrices: guess, truth and exposed part of each, of one shape.

    Returns:
        The error; NaN where nothing is secret.
    """
    wrong = secret = 0.0
    for guess, truth, exposed in matrices:
        wrong += float((guess.double() - truth.double()).square().sum())
        secret += float((truth.double() - exposed.double()).square().sum())
    return math.sqrt(wrong / secret) if secret else math.nan
