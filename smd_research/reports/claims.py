"""What a paper claims, beside what was measured, with a verdict that is computed and never typed.

A claim stands in ``conf/table/NAME.yaml``: its words, the value expected with its source, and a rule of this module.
Papers that print no values make claims of shape only, and the verdict says so.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import Any, Literal

from smd_research.records.record import Status
from smd_research.reports.points import Point, Series, matched, rest
from smd_research.reports.render import numbers
from smd_research.reports.tables.table import Column, Table, TableEntry

SHAPE = "shape only"
"""What is expected where the source prints no values."""

Show = Literal["number", "share", "ratio"]
"""How a figure is written."""


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim: as shown, and whether the claim holds; None where it is not measured yet."""

    ours: str
    holds: bool | None


NOT_YET = Finding(numbers.PENDING, None)

Rule = Callable[[Sequence[Point]], Finding]


@dataclass(frozen=True)
class Claim:
    """One line of the comparison.

    Attributes:
        claim: what is claimed, in words.
        expected: the value expected, or ``shape only``.
        source: where that stands, e.g. ``Figure 4, axis`` or ``aim``.
        rule: computes what was found.
    """

    claim: str
    expected: str
    source: str
    rule: Rule


def claims_table(claims: Sequence[Claim], found: Sequence[Point], title: str) -> Table:
    """Claims beside our figures and the verdict: ``holds``, ``does not``, ``shape only: holds``, ``...``."""
    columns = [Column(name, align="left") for name in ("claim", "expected", "source", "ours", "verdict")]
    complete = all(point.status is not Status.MISSING for point in found)
    rows = []
    for claim in claims:
        finding = claim.rule(found)
        texts = (claim.claim, claim.expected, claim.source, finding.ours, verdict(claim, finding, complete))
        rows.append(tuple(map(TableEntry, texts)))
    return Table(title, tuple(columns), tuple(rows))


def verdict(claim: Claim, finding: Finding, complete: bool = True) -> str:
    """A finding in words; of an incomplete table it is one so far."""
    if finding.holds is None:
        return numbers.PENDING
    text = ("holds" if finding.holds else "does not") + ("" if complete else " so far")
    return f"{SHAPE}: {text}" if claim.expected == SHAPE else text


def within(
    points: Sequence[Point], of: Series, low: float = -math.inf, high: float = math.inf, show: Show = "number"
) -> Finding:
    """Every figure lies between two numbers, ends included; equal ends ask for one exact value."""
    found = of.points(points)
    return _bounded([p.value for p in found], low, high, show)


def some_within(
    points: Sequence[Point], of: Series, low: float = -math.inf, high: float = math.inf, show: Show = "number"
) -> Finding:
    """At least one figure lies between two numbers."""
    found = of.points(points)
    if not found:
        return NOT_YET
    return Finding(_range([p.value for p in found], show), any(low <= p.value <= high for p in found))


def same_order(points: Sequence[Point], of: Series, value: float) -> Finding:
    """Every figure is within a factor of the square root of ten of a value."""
    return within(points, of, value / math.sqrt(10), value * math.sqrt(10))


def not_above(points: Sequence[Point], of: Series, bound: Series, show: Show = "share") -> Finding:
    """No figure exceeds its bound beyond its 95 % interval: each interval reaches down to the bound or below."""
    pairs = list(matched(points, of, bound))
    if not pairs:
        return NOT_YET
    above = [p for p, limit in pairs if _low(p) > limit.value + 1e-12]
    highest = max(p.value - limit.value for p, limit in pairs)
    return Finding(f"{len(above)} of {len(pairs)} above; largest excess {_written(highest, show)}", not above)


def exceeds(points: Sequence[Point], of: Series, bound: Series, show: Show = "share") -> Finding:
    """Some figure exceeds its bound beyond its 95 % interval: the bound is broken."""
    kept = not_above(points, of, bound, show)
    return kept if kept.holds is None else Finding(kept.ours, not kept.holds)


def between(points: Sequence[Point], of: Series, low: Series, high: Series) -> Finding:
    """Each figure lies between those of two other series at the same labels."""
    lows = {rest(p, ()): bottom for p, bottom in matched(points, of, low)}
    highs = matched(points, of, high)
    pairs = [(p, lows[rest(p, ())], top) for p, top in highs if rest(p, ()) in lows]
    if not pairs:
        return NOT_YET
    inside = sum(bottom.value <= p.value <= top.value for p, bottom, top in pairs)
    return Finding(f"{inside} of {len(pairs)} between", inside == len(pairs))


def times(points: Sequence[Point], of: Series, than: Series, low: float = 0.0, high: float = math.inf) -> Finding:
    """One series over another, at the same labels, lies between two numbers."""
    pairs = [(p, q) for p, q in matched(points, of, than) if q.value]
    return _bounded([p.value / q.value for p, q in pairs], low, high, "ratio")


def exceeds_by(
    points: Sequence[Point],
    of: Series,
    than: Series,
    low: float = -math.inf,
    high: float = math.inf,
    show: Show = "number",
) -> Finding:
    """One series minus another, at the same labels, lies between two numbers."""
    values = [p.value - q.value for p, q in matched(points, of, than)]
    return _bounded(values, low, high, show)


def grows_slower(
    points: Sequence[Point], of: Series, than: Series, over: str, share: float = 1.0, along: Sequence[str] = ()
) -> Finding:
    """The slope of one series over a label is below a share of the slope of another, for every curve they share.

    ``along`` names labels that change with it, as the model's name does with its size.
    """
    slopes = [_slopes(points, one, over, {*_shared(of, than), *along}) for one in (of, than)]
    shared = slopes[0].keys() & slopes[1].keys()
    if not shared:
        return NOT_YET
    quotients = [slopes[0][key] / slopes[1][key] if slopes[1][key] else math.inf for key in shared]
    holds = all(slopes[0][key] < share * slopes[1][key] for key in shared)
    return Finding(f"{_range(quotients, 'ratio')} the slope", holds)


def flat(points: Sequence[Point], of: Series, over: Sequence[str], tolerance: float) -> Finding:
    """Over some labels the largest figure of each curve is within a tolerance of the smallest: 0.3 is 30 % above."""
    curves: dict[tuple[tuple[str, str], ...], list[float]] = defaultdict(list)
    for point in of.points(points):
        curves[rest(point, [*over, *of.where])].append(point.value)
    spans = [max(values) / min(values) for values in curves.values() if len(values) > 1 and min(values) > 0]
    if not spans:
        return NOT_YET
    return Finding(f"largest / smallest {_range(spans, 'ratio')}", all(span <= 1 + tolerance for span in spans))


def largest(points: Sequence[Point], of: str, among: Sequence[str], where: Mapping[str, Any] | None = None) -> Finding:
    """One quantity is the largest of several wherever they were measured together."""
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = defaultdict(dict)
    for name in (of, *among):
        for point in Series(name, where or {}).points(points):
            found[rest(point, ())][name] = point.value
    measured = [figures for figures in found.values() if of in figures and len(figures) > 1]
    if not measured:
        return NOT_YET
    wins = sum(figures[of] >= max(figures.values()) for figures in measured)
    return Finding(f"largest in {wins} of {len(measured)}", wins == len(measured))


def _bounded(values: Sequence[float], low: float, high: float, show: Show) -> Finding:
    if not values:
        return NOT_YET
    inside = sum(low <= value <= high for value in values)
    ours = f"{inside} of {len(values)} exactly" if low == high else _range(values, show)
    return Finding(ours, inside == len(values))


def _slopes(
    points: Sequence[Point], of: Series, over: str, names: set[str]
) -> dict[tuple[tuple[str, str], ...], float]:
    """The least-squares slope over a label of every curve with two or more places."""
    curves: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    for point in of.points(points):
        place = point.labels.get(over)
        if isinstance(place, int | float):
            curves[rest(point, names | {over})].append((float(place), point.value))
    return {
        key: linear_regression(*zip(*curve, strict=True)).slope
        for key, curve in curves.items()
        if len({place for place, _ in curve}) > 1
    }


def _shared(one: Series, other: Series) -> set[str]:
    """The labels that both series ask for, and so may differ in."""
    return set(one.where) & set(other.where)


def _low(point: Point) -> float:
    return point.value if math.isnan(point.low) else point.low


def _range(values: Sequence[float], show: Show) -> str:
    ends = list(dict.fromkeys(_written(value, show) for value in (min(values), max(values))))
    return " to ".join(ends)


def _written(value: float, show: Show) -> str:
    if show == "ratio":
        return f"{value:.2f}x"
    if show == "share":
        return ("-" if value < 0 else "") + numbers.share(abs(value))
    return numbers.quantity(value)
