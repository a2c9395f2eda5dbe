"""The mean of differences prompt by prompt, of two sides that were given the same prompts.

A prompt is one value, whatever is inside it, so that intervals and tests run over prompts. Shares have Gaffke's
interval, from -1 to 1 (:mod:`smd_research.metrics.interval`): the bootstrap of the pairs with Dirichlet(1, ..., 1)
weights, one pair at the end of the range added, and computed instead of drawn. Its probability at zero is that of
McNemar's exact test (Q. McNemar 1947) where both sides have 0 or 1 of each prompt: with b prompts up and c down,
``P(Gamma(b) <= Gamma(c + 1)) = P(Binomial(b + c, 1/2) >= b)``. Interval and test so never contradict each other.

Amounts, which have no range, have the bootstrap-t of the pairs (P. Hall 1988, Ann. Stat. 16): pairs are drawn with
replacement, and where the mean lies among its own standard errors is read off. Two or three pairs bound no amount: the
interval has no end there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from smd_research.core.seeds import generator
from smd_research.metrics.estimate import Scale, aggregate
from smd_research.metrics.interval import LEVEL, Values, probability_of_no_more

_RESAMPLES = 9999
_REACH = {"rate": 1.0, "excess": 2.0}
"""How far two values of a bounded scale can lie apart."""


@dataclass(frozen=True)
class PairedMean:
    """The mean of paired differences.

    Attributes:
        value: the mean, with ``low`` and ``high`` its 95 % interval; NaN for a single pair of amounts.
        n: pairs.
        above: the probability of such a mean, or one further up, if the true one were no more than 0.
        below: the same, further down, if it were no less.
    """

    value: float
    low: float
    high: float
    n: int
    above: float
    below: float

    @property
    def p(self) -> float:
        """The probability of a mean as far from 0, either way, if the true one were 0."""
        return min(2 * self.above, 2 * self.below, 1.0)


def paired_mean(differences: Sequence[float], scale: Scale) -> PairedMean:
    """The mean of differences of values of a scale, one a prompt.

    The order of prompts does not count, and the mirrored differences have the mirrored result.

    Raises:
        ValueError: for no difference, or one that two values of the scale cannot have.
    """
    values = np.sort(np.asarray(differences, dtype=np.float64))
    if not values.size:
        raise ValueError("a mean needs at least one difference")
    if scale in _REACH:
        return _of_shares(values / _REACH[scale], _REACH[scale])
    turned = np.sort(-values)
    if tuple(turned) > tuple(values):
        return _mirrored(_of_amounts(turned))
    return _of_amounts(values)


def _of_shares(values: Values, reach: float) -> PairedMean:
    found = aggregate(values, "excess")
    above, below = _one_sided(values), _one_sided(-values)
    return PairedMean(reach * found.mean, reach * found.low, reach * found.high, found.n, above, below)


def _one_sided(values: Values) -> float:
    """The probability of differences that lie as far up, of shares, if their true mean were no more than 0."""
    up, down = int((values == 1).sum()), int((values == -1).sum())
    if up + down == np.count_nonzero(values):
        return float(scipy.stats.binom.sf(up - 1, up + down, 0.5))
    return probability_of_no_more(values, 0.0, lowest=-1.0)


def _of_amounts(values: Values) -> PairedMean:
    mean, error = float(values.mean()), float(scipy.stats.sem(values)) if values.size > 1 else math.nan
    if not error > 0:  # a single pair, or all alike
        certain = float(error == 0)
        low = high = mean if certain else math.nan
        return PairedMean(mean, low, high, values.size, 1 - certain * (mean > 0), 1 - certain * (mean < 0))
    drawn = _bootstrap_t(values)
    top = float(np.quantile(drawn, (1 + LEVEL) / 2, method="higher"))
    bottom = float(np.quantile(drawn, (1 - LEVEL) / 2, method="lower"))
    beyond = [int(one.sum() + 1) / (_RESAMPLES + 1) for one in (drawn >= mean / error, drawn <= mean / error)]
    return PairedMean(mean, mean - top * error, mean - bottom * error, values.size, beyond[0], beyond[1])


def _bootstrap_t(values: Values) -> Values:
    """How many of its own standard errors the mean of each resample lies above the mean."""
    rng, size = generator(0, "paired"), values.size
    weights = rng.multinomial(size, np.full(size, 1 / size), _RESAMPLES)
    centred = values - values.mean()
    means = weights @ centred / size
    errors = np.sqrt(np.maximum(weights @ centred**2 / size - means**2, 0) / (size - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        places: Values = np.nan_to_num(means / errors, nan=0.0, posinf=math.inf, neginf=-math.inf)
    return places


def _mirrored(found: PairedMean) -> PairedMean:
    return PairedMean(-found.value, -found.high, -found.low, found.n, found.below, found.above)
