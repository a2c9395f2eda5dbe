"""A mean with its 95 % interval."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from smd_research.metrics.interval import LEVEL, bounded_interval

Scale = Literal["linear", "positive", "rate", "excess", "log", "known"]
"""How values are averaged: as they are, as amounts that cannot be negative, as shares in [0, 1], as differences of two
shares, in [-1, 1], as logarithms, or as what is known without measuring: a level of chance, a bound."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval over ``n`` values; NaN where there is nothing to say.

    ``low`` and ``high`` are NaN for a single value of which no interval can be given.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1


def aggregate(values: Iterable[float | bool | None], scale: Scale = "linear") -> Estimate:
    """Average per-prompt values; None and NaN are left out and do not count in ``n``.

    What is bounded, ``rate`` and ``excess``, has Gaffke's interval (:mod:`smd_research.metrics.interval`), of a single
    value too. ``linear`` gives Student's t interval, ``positive`` the same cut at zero, ``log`` that of the logarithms
    about a geometric mean. What is ``known`` has none: verdicts take it as exact.

    Raises:
        ValueError: for a rate outside [0, 1], an excess outside [-1, 1] or a non-positive value on the log scale.
    """
    kept = np.array([float(value) for value in values if value is not None and not math.isnan(value)])
    if kept.size == 0:
        return Estimate(math.nan, n=0)
    if scale == "known":
        return Estimate(float(kept.mean()), n=kept.size)
    if scale in ("rate", "excess"):
        lowest = 0.0 if scale == "rate" else -1.0
        if kept.min() < lowest or kept.max() > 1:
            raise ValueError(f"this {scale} lies in [{lowest:g}, 1], not [{kept.min():g}, {kept.max():g}]")
        low, high = (lowest + (1 - lowest) * end for end in bounded_interval((kept - lowest) / (1 - lowest)))
        return Estimate(float(kept.mean()), low, high, kept.size)
    if scale == "log":
        if kept.min() <= 0:
            raise ValueError(f"the log scale needs positive values, not {kept.min():g}")
        mean, low, high = np.exp(_student(np.log(kept)))
        return Estimate(float(mean), float(low), float(high), kept.size)
    mean, low, high = _student(kept)
    return Estimate(mean, max(low, 0.0) if scale == "positive" else low, high, kept.size)


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Token-weighted perplexity, its interval taken over prompts.

    ``exp(sum nll / sum tokens)``: the ratio of two sums over prompts, so the interval is that of the ratio estimator
    (linearised, Student's t) on the log scale, cut at 1.

    Args:
        nll: for each prompt the summed negative log-likelihood of its scored tokens, in nats.
        tokens: for each prompt how many tokens were scored; prompts with none are left out.

    Raises:
        ValueError: when the two do not match.
    """
    if len(nll) != len(tokens):
        raise ValueError(f"{len(nll)} likelihoods for {len(tokens)} token counts")
    pairs = [(s, t) for s, t in zip(nll, tokens, strict=True) if t > 0 and not math.isnan(s)]
    n = len(pairs)
    if n == 0:
        return Estimate(math.nan, n=0)
    sums, counts = np.array(pairs, dtype=float).T
    mean = sums.sum() / counts.sum()
    if n == 1:
        return Estimate(float(np.exp(mean)), n=1)
    spread = np.sqrt(n / (n - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    reach = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * spread
    return Estimate(float(np.exp(mean)), float(np.exp(max(mean - reach, 0.0))), float(np.exp(mean + reach)), n)


def _student(values: np.ndarray) -> tuple[float, float, float]:
    mean = float(values.mean())
    if values.size < 2:
        return mean, math.nan, math.nan
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, values.size - 1) * stats.sem(values))
    return mean, mean - reach, mean + reach
