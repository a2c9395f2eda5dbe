"""What a paper claims, beside what was measured, with a verdict that is computed and never typed.

How figures with intervals are judged is for :mod:`smd_research.reports.verdicts`.

A claim stands in ``conf/table/NAME.yaml``: its words, the value expected with its source, and a rule of this module.
Papers that print no values make claims of shape only, and the verdict says so.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.records.record import Status
from smd_research.reports.comparing import Met, compare_pairs
from smd_research.reports.gaps import gaps
from smd_research.reports.points import Point, Series, Where, matched, rest
from smd_research.reports.render import numbers
from smd_research.reports.sides import record_of
from smd_research.reports.tables.table import Column, Table, TableEntry
from smd_research.reports.verdicts import (
    Amount,
    Comparison,
    Judgement,
    all_hold,
    amount,
    combination,
    difference,
    quotient,
    shown,
    some_hold,
)

SHAPE = "shape only"
"""What is expected where the source prints no values."""

HOW_JUDGED = (
    "Judged by the 95 % intervals, with Holm's correction over the figures of a claim: undecided where an interval "
    "reaches across a bound. Figures without an interval count as exact."
)

Show = Literal["number", "share", "ratio"]
"""How a figure is written."""


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim, as shown, and what is said of it; None where it is not measured yet."""

    ours: str
    verdict: Judgement | None


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
    """Claims beside our figures and the verdict in words, see :func:`verdict`."""
    columns = [Column(name, align="left") for name in ("claim", "expected", "source", "ours", "verdict")]
    complete = all(point.status is not Status.MISSING for point in found)
    rows = []
    for claim in claims:
        finding = claim.rule(found)
        texts = (claim.claim, claim.expected, claim.source, finding.ours, verdict(claim, finding, complete))
        rows.append(tuple(map(TableEntry, texts)))
    return Table(title, tuple(columns), tuple(rows), (HOW_JUDGED,))


def verdict(claim: Claim, finding: Finding, complete: bool = True) -> str:
    """A finding in words; of an incomplete table it is one so far."""
    if finding.verdict is None:
        return numbers.PENDING
    text = str(finding.verdict) + ("" if complete else " so far")
    return f"{SHAPE}: {text}" if claim.expected == SHAPE else text


def within(
    points: Sequence[Point], of: Series, low: float = -math.inf, high: float = math.inf, show: Show = "number"
) -> Finding:
    """Every figure lies between two numbers, ends included; equal ends ask for one exact value of what was measured."""
    return _bounded([amount(point) for point in of.points(points)], low, high, show)


def some_within(
    points: Sequence[Point], of: Series, low: float = -math.inf, high: float = math.inf, show: Show = "number"
) -> Finding:
    """At least one figure lies between two numbers."""
    found = [amount(point) for point in of.points(points)]
    if not found:
        return NOT_YET
    return Finding(_range(found, show), some_hold([Comparison(one, low, high) for one in found]))


def same_order(points: Sequence[Point], of: Series, value: float) -> Finding:
    """Every figure is within a factor of the square root of ten of a value."""
    return within(points, of, value / math.sqrt(10), value * math.sqrt(10))


def not_above(points: Sequence[Point], of: Series, bound: Series, show: Show = "share") -> Finding:
    """No figure exceeds its bound; those are counted that are shown to, all taken together."""
    beyond = [difference(amount(p), amount(limit)) for p, limit in matched(points, of, bound)]
    if not beyond:
        return NOT_YET
    comparisons = [Comparison(one, high=0.0) for one in beyond]
    above = sum(shown([one.outside for one in comparisons]))
    highest = _written(max(one.value for one in beyond), show)
    return Finding(f"{above} of {len(beyond)} above; largest excess {highest}", all_hold(comparisons))


def exceeds(points: Sequence[Point], of: Series, bound: Series, show: Show = "share") -> Finding:
    """Some figure exceeds its bound: the bound is broken."""
    kept = not_above(points, of, bound, show)
    broken = {Judgement.HOLDS: Judgement.DOES_NOT, Judgement.DOES_NOT: Judgement.HOLDS}
    return Finding(kept.ours, kept.verdict and broken.get(kept.verdict, kept.verdict))


def between(points: Sequence[Point], of: Series, low: Series, high: Series) -> Finding:
    """Each figure lies between those of two other series at the same labels."""
    lows = {rest(p, ()): bottom for p, bottom in matched(points, of, low)}
    highs = matched(points, of, high)
    triples = [(p, lows[rest(p, ())], top) for p, top in highs if rest(p, ()) in lows]
    if not triples:
        return NOT_YET
    inside = sum(bottom.value <= p.value <= top.value for p, bottom, top in triples)
    pairs = [pair for p, bottom, top in triples for pair in ((p, bottom), (top, p))]
    gaps = [Comparison(difference(amount(upper), amount(lower)), low=0.0) for upper, lower in pairs]
    return Finding(f"{inside} of {len(triples)} between", all_hold(gaps))


def times(points: Sequence[Point], of: Series, than: Series, low: float = 0.0, high: float = math.inf) -> Finding:
    """One series over another, at the same labels, lies between two numbers."""
    pairs = [(amount(p), amount(q)) for p, q in matched(points, of, than) if q.value > 0]
    return _bounded([quotient(one, other) for one, other in pairs], low, high, "ratio")


def exceeds_by(
    points: Sequence[Point],
    of: Series,
    than: Series,
    low: float = -math.inf,
    high: float = math.inf,
    show: Show = "number",
) -> Finding:
    """One series minus another, at the same labels, lies between two numbers."""
    values = [difference(amount(p), amount(q)) for p, q in matched(points, of, than)]
    return _bounded(values, low, high, show)


def better(points: Sequence[Point], of: Series, than: Where) -> Finding:
    """The cells of a series are better for the user than others at the same labels, over the same prompts.

    Judged prompt by prompt, so that it needs the records of both: what varies from prompt to prompt does not count.

    Raises:
        RecordError: two of them share no prompts, or have no such metric prompt by prompt.
    """
    pairs = list(matched(points, of, Series(of.quantity, than)))
    if not pairs:
        return NOT_YET
    met = [Met.of(record_of(one), record_of(other), (one, other)) for one, other in pairs]
    if why := next((why for pair in met if (why := pair.obstacle(of.quantity))), ""):
        raise RecordError(why)
    found = compare_pairs(met, [of.quantity])
    wins, losses = (sum(one.better == side for one in found) for side in ("a", "b"))
    show: Show = "share" if CARDS[of.quantity].scale in ("rate", "excess") else "number"
    differences = _range([Amount(one.difference) for one in found], show)
    return Finding(f"{wins} of {len(found)} better, {losses} worse; difference {differences}", all_hold(found))


def differs_by(
    points: Sequence[Point],
    of: Series,
    than: Where,
    low: float = -math.inf,
    high: float = math.inf,
    show: Show = "number",
) -> Finding:
    """As :func:`exceeds_by`, of the same prompts and seeds pooled: the interval is that of paired differences.

    Raises:
        RecordError: two cells share no prompts, or have no such metric prompt by prompt.
    """
    found = [gap.paired for gap in gaps(points, of, than)]
    return _bounded([Amount(one.value, one.low, one.high) for one in found], low, high, show)


def grows_slower(
    points: Sequence[Point], of: Series, than: Series, over: str, share: float = 1.0, along: Sequence[str] = ()
) -> Finding:
    """The slope of one series over a label is below a share of the slope of another, for every curve they share.

    ``along`` names labels that change with it, as the model's name does with its size.
    """
    slower, faster = (_slopes(points, one, over, {*_shared(of, than), *along}) for one in (of, than))
    both = [(slower[key], faster[key]) for key in slower.keys() & faster.keys()]
    if not both:
        return NOT_YET
    quotients = [Amount(one.value / other.value if other.value else math.inf) for one, other in both]
    gaps = [combination([(1.0, one), (-share, other)]) for one, other in both]
    return Finding(f"{_range(quotients, 'ratio')} the slope", all_hold([Comparison(gap, high=0.0) for gap in gaps]))


def flat(points: Sequence[Point], of: Series, over: Sequence[str], tolerance: float) -> Finding:
    """Over some labels the largest figure of each curve is within a tolerance of the smallest: 0.3 is 30 % above."""
    curves: dict[tuple[tuple[str, str], ...], list[Amount]] = defaultdict(list)
    for point in of.points(points):
        curves[rest(point, [*over, *of.where])].append(amount(point))
    kept = [sorted(curve, key=lambda one: one.value) for curve in curves.values() if len(curve) > 1]
    kept = [curve for curve in kept if curve[0].value > 0]
    if not kept:
        return NOT_YET
    spans = [Amount(curve[-1].value / curve[0].value) for curve in kept]
    ratios = [quotient(upper, lower) for curve in kept for lower, upper in combinations(curve, 2)]
    level = all_hold([Comparison(ratio, high=1 + tolerance) for ratio in ratios])
    return Finding(f"largest / smallest {_range(spans, 'ratio')}", level)


def largest(points: Sequence[Point], of: str, among: Sequence[str], where: Mapping[str, Any] | None = None) -> Finding:
    """One quantity is the largest of several wherever they were measured together."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Amount]] = defaultdict(dict)
    for name in (of, *among):
        for point in Series(name, where or {}).points(points):
            found[rest(point, ())][name] = amount(point)
    measured = [figures for figures in found.values() if of in figures and len(figures) > 1]
    if not measured:
        return NOT_YET
    wins = sum(figures[of].value >= max(one.value for one in figures.values()) for figures in measured)
    gaps = [difference(figures[of], one) for figures in measured for name, one in figures.items() if name != of]
    return Finding(f"largest in {wins} of {len(measured)}", all_hold([Comparison(gap, low=0.0) for gap in gaps]))


def _bounded(found: Sequence[Amount], low: float, high: float, show: Show) -> Finding:
    if not found:
        return NOT_YET
    if low == high:  # one exact value: of what was measured, not of what more of it would give
        equal = sum(one.value == low for one in found)
        return Finding(
            f"{equal} of {len(found)} exactly", Judgement.HOLDS if equal == len(found) else Judgement.DOES_NOT
        )
    return Finding(_range(found, show), all_hold([Comparison(one, low, high) for one in found]))


def _slopes(
    points: Sequence[Point], of: Series, over: str, names: set[str]
) -> dict[tuple[tuple[str, str], ...], Amount]:
    """The least-squares slope over a label of every curve with two or more places."""
    curves: dict[tuple[tuple[str, str], ...], list[tuple[float, Amount]]] = defaultdict(list)
    for point in of.points(points):
        place = point.labels.get(over)
        if isinstance(place, int | float):
            curves[rest(point, names | {over})].append((float(place), amount(point)))
    return {key: _slope(curve) for key, curve in curves.items() if len({place for place, _ in curve}) > 1}


def _slope(curve: Sequence[tuple[float, Amount]]) -> Amount:
    centre = fmean(place for place, _ in curve)
    squares = sum((place - centre) ** 2 for place, _ in curve)
    return combination([((place - centre) / squares, one) for place, one in curve])


def _shared(one: Series, other: Series) -> set[str]:
    """The labels that both series ask for, and so may differ in."""
    return set(one.where) & set(other.where)


def _range(found: Sequence[Amount], show: Show) -> str:
    values = [one.value for one in found]
    ends = list(dict.fromkeys(_written(value, show) for value in (min(values), max(values))))
    return " to ".join(ends)


def _written(value: float, show: Show) -> str:
    if show == "ratio":
        return f"{value:.2f}x"
    if show == "share":
        return ("-" if value < 0 else "") + numbers.share(abs(value))
    return numbers.quantity(value)
