"""What a tuned model is worth, and how much of the text that it was tuned on came back."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from smd_research.core.seeds import generator
from smd_research.metrics.estimate import LEVEL, Estimate

_RESAMPLES = 2000


def f1_macro(truth: Sequence[int], predicted: Sequence[int], classes: int) -> Estimate:
    """Mean over the classes that occur of the F1 score; percentile interval of a bootstrap over texts.

    Args:
        truth: class of each text.
        predicted: class that was told of each text.
        classes: number of classes.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64)), 1)
    n = int(confusion.sum())
    if not n:
        return Estimate(math.nan, n=0)
    present = confusion.sum(1) > 0
    drawn = generator(0, "bootstrap").multinomial(n, confusion.ravel() / n, size=_RESAMPLES)
    low, high = np.quantile(_f1(drawn.reshape(-1, classes, classes), present), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(_f1(confusion[None], present)[0]), float(low), float(high), n)


def _f1(confusion: NDArray[np.int64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Macro F1 of confusion matrices ``[n, classes, classes]`` over the classes that are ``present``."""
    right = np.einsum("ncc->nc", confusion)
    told = confusion.sum(1) + confusion.sum(2)
    found: NDArray[np.float64] = (2 * right / np.maximum(told, 1))[:, present].mean(1)
    return found


def running_share(hits: Sequence[int], counts: Sequence[int]) -> Estimate:
    """Hits over counts of all texts; the interval is that of the ratio estimator over texts (Student's t).

    Args:
        hits: of each text.
        counts: of each text; texts that count nothing are left out.

    Raises:
        ValueError: when the two do not match.
    """
    pairs = np.array([(h, c) for h, c in zip(hits, counts, strict=True) if c > 0], dtype=float)
    n = len(pairs)
    if n == 0:
        return Estimate(math.nan, n=0)
    found, of = pairs.T
    mean = float(found.sum() / of.sum())
    if n == 1:
        return Estimate(mean)
    error = math.sqrt(n / (n - 1) * float(((found - mean * of) ** 2).sum())) / float(of.sum())
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error
    return Estimate(mean, max(mean - reach, 0.0), min(mean + reach, 1.0), n)
