"""The 95 % interval of a mean that is bounded, from as few values as there are.

Gaffke's interval (N. Gaffke 2005; E. Learned-Miller and P. S. Thomas, arXiv 1905.06208): weigh the values, and one more
at the end of the range, by Dirichlet(1, ..., 1); the upper bound is a quantile of the weighted mean with the upper end
added, the lower bound one with the lower end. Of values 0 and 1 it is exactly Clopper and Pearson's; of shares it is
narrower, as they vary less; each bound grows with every value, and the range is never left. That it covers at any size
is proved for 0 and 1 and conjectured beyond; the tests simulate it.

Values may be weighed (hits of counts, prompt by prompt): the same then holds for the ratio of the two sums.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

LEVEL = 0.95

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_PLACES, _WIDTHS = (_NODES + 1) / 2, _WEIGHTS / 2
"""Quadrature on [0, 1]."""

Values = NDArray[np.float64]


def bounded_interval(
    values: Sequence[float] | Values, counts: Sequence[float] | Values | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """The interval of the mean of shares in [0, 1], or of a ratio of sums.

    Args:
        values: shares ``[n]``, one a prompt; hits where counts are given. Prompts are independent, what is inside one
            is not: whatever belongs together is one value.
        counts: of which the hits are, ``[n]``, above 0.
        level: of confidence, both ends together.

    Returns:
        Lower and upper bound; (0, 1) of no values.

    Raises:
        ValueError: for a share outside [0, 1].
    """
    hits = np.asarray(values, dtype=np.float64)
    of = np.ones_like(hits) if counts is None else np.asarray(counts, dtype=np.float64)
    if hits.size == 0:
        return 0.0, 1.0
    if hits.min() < 0 or (hits > of).any():
        raise ValueError(f"a share lies in [0, 1], not at {float((hits / of).max()):g} or {float(hits.min()):g}")
    tail = (1 - level) / 2
    if counts is None and np.isin(hits, (0.0, 1.0)).all():
        return clopper_pearson(float(hits.sum()), hits.size, level)
    return 1 - _upper(of - hits, of, tail), _upper(hits, of, tail)


def clopper_pearson(hits: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share of ``n`` values of which each is a hit or not; part of a hit lies between."""
    tail = (1 - level) / 2
    low = float(scipy.stats.beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(scipy.stats.beta.isf(tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def probability_of_no_more(values: Sequence[float] | Values, mean: float, lowest: float) -> float:
    """The probability of values as large if their true mean were no more than ``mean``.

    It is that of the weighted mean, with the lowest value that there may be added, to lie there: below half of one
    minus the level where, and only where, the interval lies above ``mean``.
    """
    return _below_zero(np.append(np.asarray(values, dtype=np.float64), lowest) - mean)


def _upper(hits: Values, of: Values, tail: float) -> float:
    """The upper bound of a ratio: where the weighted one with a full prompt added lies below it but for ``tail``."""
    if (hits == of).all():
        return 1.0
    typical = of.mean()
    found, counted = np.append(hits, typical), np.append(of, typical)
    start = float(hits.sum() / of.sum())

    def excess(bound: float) -> float:
        return _below_zero(found - bound * counted) - (1 - tail)

    return float(scipy.optimize.brentq(excess, start, 1.0, xtol=1e-7)) if excess(start) < 0 else start


def _below_zero(slopes: Values) -> float:
    """The probability that ``sum slopes * E`` is not above 0, with independent standard exponentials ``E``.

    Gil-Pelaez' inversion of the characteristic function ``prod 1 / (1 - i u slope)``.
    """
    if (slopes <= 0).all():
        return 1.0
    scale = 1 / math.sqrt(float(np.square(slopes).sum()))
    u = scale * _PLACES / (1 - _PLACES)
    products = np.outer(u, slopes)
    phase = np.arctan(products).sum(1)
    damping = 0.5 * np.log1p(np.square(products)).sum(1)
    kernel = np.sin(phase) * np.exp(-damping) / u
    return 0.5 - float((kernel * scale / np.square(1 - _PLACES)) @ _WIDTHS) / math.pi
