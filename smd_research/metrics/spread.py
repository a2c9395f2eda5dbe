"""The median of repeated measurements and how far it can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from smd_research.metrics.interval import LEVEL


@dataclass(frozen=True)
class Spread:
    """A median and its 95 % interval; NaN where nothing was measured, or once only."""

    median: float
    low: float = math.nan
    high: float = math.nan


NOTHING = Spread(math.nan)


def spread(values: Sequence[float]) -> Spread:
    """The median with its distribution-free interval, the ends of which are measurements themselves.

    The interval runs from the k-th smallest to the k-th largest value, k as large as the binomial law of how many lie
    below the true median allows at 95 %. Below 6 values no such interval reaches 95 %: then it is the whole range,
    which covers the true median with probability 1 - 2^(1-n), for example 94 % at n = 5.
    """
    kept = np.sort([value for value in values if not math.isnan(value)])
    if kept.size == 0:
        return NOTHING
    if kept.size == 1:
        return Spread(float(kept[0]))
    k = max(int(scipy.stats.binom.ppf((1 - LEVEL) / 2, kept.size, 0.5)), 1)
    return Spread(float(np.median(kept)), float(kept[k - 1]), float(kept[-k]))
