"""A mean with its 95 % interval."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

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


def mean_by_token(sums: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Token-weighted mean over prompts, of an amount or of a difference: ``sum sums / sum tokens``.

    Its interval is that of the ratio estimator (linearised, Student's t), taken over prompts.

    Args:
        sums: for each prompt the sum over its scored tokens.
        tokens: for each prompt how many tokens were scored; prompts with none are left out.

    Raises:
        ValueError: when the two do not match.
    """
    if len(sums) != len(tokens):
        raise ValueError(f"{len(sums)} sums for {len(tokens)} token counts")
    pairs = [(s, t) for s, t in zip(sums, tokens, strict=True) if t > 0 and not math.isnan(s)]
    n = len(pairs)
    if n == 0:
        return Estimate(math.nan, n=0)
    values, counts = np.array(pairs, dtype=float).T
    mean = float(values.sum() / counts.sum())
    if n == 1:
        return Estimate(mean, n=1)
    spread = math.sqrt(n / (n - 1) * float(np.square(values - mean * counts).sum())) / float(counts.sum())
    reach = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * spread
    return Estimate(mean, mean - reach, mean + reach, n)


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> Estimate:
    """Token-weighted perplexity, ``exp(sum nll / sum tokens)``, its interval that of the mean's logarithm, cut at 1.

    Args:
        nll: for each prompt the summed negative log-likelihood of its scored tokens, in nats.
        tokens: for each prompt how many tokens were scored; prompts with none are left out.

    Raises:
        ValueError: when the two do not match.
    """
    mean = mean_by_token(nll, tokens)
    # written so that what has no interval keeps none
    low = mean.low if math.isnan(mean.low) else max(mean.low, 0.0)
    return Estimate(float(np.exp(mean.mean)), float(np.exp(low)), float(np.exp(mean.high)), mean.n)


def _student(values: np.ndarray) -> tuple[float, float, float]:
    mean = float(values.mean())
    if values.size < 2:
        return mean, math.nan, math.nan
    reach = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, values.size - 1) * scipy.stats.sem(values))
    return mean, mean - reach, mean + reach
