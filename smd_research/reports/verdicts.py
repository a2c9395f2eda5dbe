"""Three-valued verdicts: a statement about figures with intervals holds, does not, or is undecided at this n.

A figure is inside its bounds where its whole 95 % interval is, outside where none of it is, undecided in between. A
statement about several figures is judged by Holm's procedure (S. Holm 1979): that *all* lie inside is refuted by one
outside, which among many would happen by accident, so their evidence is adjusted; it holds where each is inside, which
needs no adjustment (an intersection-union test). That *some* figure lies inside is the mirror image.

Intervals of differences, slopes and ratios come from those of their parts (MOVER: G. Y. Zou and A. Donner 2008, Stat.
Med. 27; ratios on the log scale), as of independent figures: of the same prompts they are if anything too wide. Where
a probability beyond the 95 % interval is needed, its nearer side is taken as 1.96 standard errors of a normal law.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from scipy.special import ndtr, ndtri

from smd_research.metrics.interval import LEVEL
from smd_research.reports.points import Point

_TAIL = (1 - LEVEL) / 2
_REACH = float(-ndtri(_TAIL))
_ROUNDING = 1e-12


class Judgement(StrEnum):
    """What is said of a statement."""

    HOLDS = "holds"
    DOES_NOT = "does not"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Amount:
    """A figure with its 95 % interval; one without (``low`` and ``high`` NaN) is taken as exact."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; the value twice where there is none."""
        low = self.value if math.isnan(self.low) else self.low
        return low, self.value if math.isnan(self.high) else self.high


def amount(point: Point) -> Amount:
    """The figure of a point."""
    return Amount(point.value, point.low, point.high)


def combination(parts: Sequence[tuple[float, Amount]]) -> Amount:
    """A weighted sum of independent figures, each with its weight."""
    value = sum(weight * part.value for weight, part in parts)
    below = [weight * (part.value - part.ends[0 if weight > 0 else 1]) for weight, part in parts]
    above = [weight * (part.ends[1 if weight > 0 else 0] - part.value) for weight, part in parts]
    return Amount(value, value - math.hypot(*below), value + math.hypot(*above))


def difference(one: Amount, other: Amount) -> Amount:
    """One figure minus another."""
    return combination([(1.0, one), (-1.0, other)])


def quotient(one: Amount, other: Amount) -> Amount:
    """One figure over another that is above 0, on the log scale."""
    if one.value <= 0:
        return Amount(one.value / other.value, one.ends[0] / other.value, one.ends[1] / other.value)
    logs = difference(_log(one), _log(other))
    return Amount(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def _log(one: Amount) -> Amount:
    return Amount(*(math.log(end) if end > 0 else -math.inf for end in (one.value, *one.ends)))


class Statement(Protocol):
    """What speaks for and against a statement about one figure."""

    @property
    def inside(self) -> float:
        """The probability of such a figure if the statement were wrong."""
        ...

    @property
    def outside(self) -> float:
        """The probability of such a figure if it were right."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Whether a figure lies between two numbers, ends included."""

    amount: Amount
    low: float = -math.inf
    high: float = math.inf

    @property
    def inside(self) -> float:
        """The probability of such a figure if the truth were outside, at the nearer end."""
        return max(_at_least(self.amount, self.low), _at_least(_mirrored(self.amount), -self.high))

    @property
    def outside(self) -> float:
        """The probability of such a figure if the truth were inside, at the nearer end."""
        return min(_above(self.amount, self.high), _above(_mirrored(self.amount), -self.low))


def _mirrored(one: Amount) -> Amount:
    low, high = one.ends
    return Amount(-one.value, -high, -low)


def _at_least(one: Amount, bound: float) -> float:
    """The probability of such a figure, or one further up, if the truth were below a bound."""
    return 0.0 if one.ends[0] >= bound - _ROUNDING and one.value - one.ends[0] <= _ROUNDING else _above(one, bound)


def _above(one: Amount, bound: float) -> float:
    """The probability of such a figure, or one further up, if the truth were no more than a bound."""
    if math.isinf(bound):
        return 0.0 if bound < 0 else 1.0
    gap = one.value - bound
    width = one.value - one.ends[0] if gap >= 0 else one.ends[1] - one.value
    if width <= _ROUNDING:
        return 0.0 if gap > _ROUNDING else 1.0
    return float(ndtr(-_REACH * gap / width))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Each probability as it counts among all of them, at most 1."""
    adjusted, largest = [1.0] * len(probabilities), 0.0
    for rank, place in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        largest = max(largest, min(probabilities[place] * (len(probabilities) - rank), 1.0))
        adjusted[place] = largest
    return adjusted


def shown(probabilities: Sequence[float]) -> list[bool]:
    """What is shown of each, all taken together."""
    return [p <= _TAIL for p in holm(probabilities)]


def all_hold(comparisons: Sequence[Statement]) -> Judgement:
    """Whether a statement is right of every figure, e.g. that it lies inside its bounds."""
    return _judged(comparisons, lambda one: one.inside, lambda one: one.outside, Judgement.HOLDS, Judgement.DOES_NOT)


def some_hold(comparisons: Sequence[Statement]) -> Judgement:
    """Whether a statement is right of any figure."""
    return _judged(comparisons, lambda one: one.outside, lambda one: one.inside, Judgement.DOES_NOT, Judgement.HOLDS)


def _judged(
    comparisons: Sequence[Statement],
    each: Callable[[Statement], float],
    any_of: Callable[[Statement], float],
    where_each: Judgement,
    where_any: Judgement,
) -> Judgement:
    if any(shown([any_of(one) for one in comparisons])):
        return where_any
    return where_each if all(each(one) <= _TAIL for one in comparisons) else Judgement.UNDECIDED
