"""Two cells over the same prompts: the mean difference prompt by prompt, and the prompts on which they differ.

A prompt that both sides served is one pair: same name, same text, same length. Where cells do better on some prompts
and worse on others, their means may agree and yet hide which prompts flipped: those are named.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS, PairedMean, paired_mean
from smd_research.metrics.interval import LEVEL
from smd_research.records.items import Item, read_items
from smd_research.records.record import Record
from smd_research.reports.points import Point
from smd_research.reports.sides import Cells, Side, Source, beside, several, told_apart
from smd_research.reports.verdicts import holm

_TIMES = ("s", "ms", "1/s")
"""Units of what is measured with a clock: it never compares across machines."""

_BY_VERSION = ("control_", "excess_")
"""Metrics that another version of the scores computes in another way."""

_PROMPTS, _VALUES = "served on one side alone", "without a value on one side"


@dataclass(frozen=True)
class Flip:
    """A prompt on which two sides differ.

    Attributes:
        prompt: its name.
        values: of the metric, of either side.
        items: what the record of either side has of it, texts too.
    """

    prompt: str
    values: tuple[float, float]
    items: tuple[Item, Item] = field(repr=False, compare=False)

    @property
    def difference(self) -> float:
        """The first side minus the second."""
        return self.values[0] - self.values[1]


@dataclass(frozen=True)
class Compared:
    """One metric of two cells over the prompts that both served.

    Attributes:
        metric: its name.
        cells: the two of them.
        means: of either side over these prompts.
        paired: the mean of the first minus the second, prompt by prompt.
        adjusted: its probability as it counts ``among`` all that were compared together, by Holm's procedure.
        unpaired: how many prompts are no pair, by the reason.
        flips: the prompts on which they differ, the widest first.
        equal: the value of each prompt on which they do not.
        texts: whether both records hold their texts.
    """

    metric: str
    cells: tuple[Point, Point] = field(repr=False)
    means: tuple[float, float]
    paired: PairedMean
    unpaired: Mapping[str, int]
    flips: tuple[Flip, ...] = field(repr=False)
    equal: tuple[float, ...] = field(repr=False)
    texts: bool
    adjusted: float
    among: int = 1

    @property
    def difference(self) -> float:
        """The first side minus the second, in the mean."""
        return self.paired.value

    @property
    def low(self) -> float:
        """The lower end of the difference's 95 % interval."""
        return self.paired.low

    @property
    def high(self) -> float:
        """The upper end of the difference's 95 % interval."""
        return self.paired.high

    @property
    def n(self) -> int:
        """Prompts that both served, with a value on both sides."""
        return self.paired.n

    @property
    def p(self) -> float:
        """The probability of a difference as large, either way, if there were none; of 0 and 1 McNemar's exact test."""
        return self.paired.p

    @property
    def ids(self) -> tuple[str, str]:
        """Of the cells."""
        return self.cells[0].id, self.cells[1].id

    @property
    def names(self) -> tuple[str, str]:
        """What each cell is called beside the other; empty where they differ in nothing."""
        return told_apart(*self.cells)

    @property
    def better(self) -> Literal["a", "b", ""]:
        """The side that is better for the user, as the metric's card says; empty where that is undecided."""
        if self.adjusted > 1 - LEVEL or not self.difference:
            return ""
        return "a" if (self.difference < 0) == _lower_is_better(self.metric) else "b"

    @property
    def inside(self) -> float:
        """The probability of such figures if the first side were not better."""
        return self.paired.below if _lower_is_better(self.metric) else self.paired.above

    @property
    def outside(self) -> float:
        """The probability of such figures if the first side were not worse."""
        return self.paired.above if _lower_is_better(self.metric) else self.paired.below


@dataclass(frozen=True, repr=False)
class Met:
    """Two cells and the prompts that both served.

    Attributes:
        cells: the two of them.
        records: of them.
        prompts: what either has of each prompt.
        unpaired: how many prompts are no pair, by the reason.
    """

    cells: tuple[Point, Point]
    records: tuple[Record, Record]
    prompts: Sequence[tuple[Item, Item]]
    unpaired: Mapping[str, int]

    @classmethod
    def of(cls, one: Record, other: Record, cells: tuple[Point, Point]) -> "Met":
        """Lay the prompts of two records beside each other, by name."""
        mine, theirs = ({item.prompt_id: item for item in read_items(record.items)} for record in (one, other))
        reasons: Counter[str] = Counter([_PROMPTS] * len(mine.keys() ^ theirs.keys()))
        prompts = []
        for name in [name for name in mine if name in theirs]:
            if why := _apart(mine[name], theirs[name]):
                reasons[why] += 1
            else:
                prompts.append((mine[name], theirs[name]))
        return cls(cells, (one, other), prompts, reasons)

    @property
    def held(self) -> list[str]:
        """The metrics that both have prompt by prompt and that can be compared, in the order of the cards."""
        return [name for name in CARDS if not self.obstacle(name)]

    def obstacle(self, metric: str) -> str:
        """Why a metric cannot be compared here; empty where it can."""
        if metric not in CARDS:
            return f"{metric} is no metric with a card: nothing says which way is better"
        for record in self.records:
            if record.items.empty:
                return f"{_name(record)} holds no prompts: its figures are of something else"
            if metric not in record.items or record.items[metric].isna().all():
                return f"{_name(record)} has no {metric} prompt by prompt"
        if metric.startswith(_BY_VERSION) and self.records[0].scored != self.records[1].scored:
            return f"{metric} was scored by two versions: smd score brings both to the last one"
        if CARDS[metric].scale == "known":
            return f"{metric} is known without measuring: its difference is exact"
        if CARDS[metric].unit in _TIMES and _machine(self.records[0]) != _machine(self.records[1]):
            return f"{metric} was measured on two machines: times compare within one alone"
        if not self.prompts:
            why = ", ".join(f"{count} {reason}" for reason, count in self.unpaired.items())
            names = " and ".join(map(_name, self.records))
            return f"{names} have no prompts in common ({why}): choose cells of one data, seed and prompt_tokens"
        return "" if self._valued(metric)[0] else f"no prompt has {metric} on both sides"

    def compared(self, metric: str) -> Compared:
        """One metric that has no obstacle, as if nothing else were compared."""
        pairs, lacking = self._valued(metric)
        found = paired_mean([pair.difference for pair in pairs], CARDS[metric].scale)
        flips = sorted((pair for pair in pairs if pair.difference), key=lambda p: (-abs(p.difference), p.prompt))
        means = [sum(pair.values[side] for pair in pairs) / len(pairs) for side in (0, 1)]
        equal = tuple(pair.values[0] for pair in pairs if not pair.difference)
        texts = all(record.texts for record in self.records)
        unpaired = {**self.unpaired, **lacking}
        both = (means[0], means[1])
        return Compared(metric, self.cells, both, found, unpaired, tuple(flips), equal, texts, found.p)

    def valued(self, metric: str) -> list[Flip]:
        """Each prompt with a value on both sides, whether they differ or not."""
        return self._valued(metric)[0]

    def _valued(self, metric: str) -> tuple[list[Flip], dict[str, int]]:
        """The prompts with a value on both sides, and how many have one on a single side; of none nothing is said."""
        pairs, lacking = [], 0
        for one, other in self.prompts:
            values = one.metrics.get(metric, math.nan), other.metrics.get(metric, math.nan)
            missing = sum(map(math.isnan, values))
            lacking += missing == 1
            pairs += [] if missing else [Flip(one.prompt_id, values, (one, other))]
        return pairs, {_VALUES: lacking} if lacking else {}


def compare(source: Source, a: Side, b: Side, metric: str) -> Compared:
    """Compare two cells prompt by prompt.

    Args:
        source: a frame, as :func:`smd_research.records.load` gives it, whose folders are read, or records.
        a: one cell: its id, the name of its folder, or labels that only it has, ``{"defense": "smd"}``.
        b: the other.
        metric: by name.

    Raises:
        RecordError: a side is no cell or several, or they share no prompts or no such metric prompt by prompt.
    """
    one, other, pairs = _sides(source, a, b)
    if len(pairs) > 1:
        raise several(a, [pair[0] for pair in pairs])
    return compare_pairs([meet(one, other, pairs[0])], [metric])[0]


def compare_all(source: Source, a: Side, b: Side, metrics: Sequence[str]) -> tuple[Compared, ...]:
    """Compare every cell of a side with the one of the other side that stands beside it, in several metrics.

    Args:
        source: as of :func:`compare`.
        a: one side. Cells stand beside each other that differ in nothing but the labels that both sides name.
        b: the other.
        metrics: by name; a pair of cells that has not one of them is left out of it.

    Raises:
        RecordError: as :func:`compare`, where nothing is left to compare.
    """
    one, other, pairs = _sides(source, a, b)
    return compare_pairs([meet(one, other, pair) for pair in pairs], metrics)


def _sides(source: Source, a: Side, b: Side) -> tuple[Cells, Cells, Sequence[tuple[Point, Point]]]:
    cells = Cells.of(source)
    one, other = cells.meant(a), cells.meant(b)
    return one, other, beside(one, other, (a, b)).pairs


def meet(one: Cells, other: Cells, pair: tuple[Point, Point]) -> Met:
    """The prompts of a cell of either side."""
    return Met.of(one.read(pair[0]), other.read(pair[1]), pair)


def compare_pairs(met: Sequence[Met], metrics: Sequence[str]) -> tuple[Compared, ...]:
    """Compare pairs of cells in several metrics, all taken together by Holm's procedure.

    Raises:
        RecordError: there is nothing to compare; why stands there of the first pair.
    """
    found = [pair.compared(metric) for metric in metrics for pair in _once(met, metric) if not pair.obstacle(metric)]
    if not found:
        held = ", ".join(met[0].held)
        raise RecordError(met[0].obstacle(metrics[0]) + (f"; there is {held}" if held else ""))
    adjusted = holm([one.p for one in found])
    return tuple(replace(one, adjusted=p, among=len(found)) for one, p in zip(found, adjusted, strict=True))


def _lower_is_better(metric: str) -> bool:
    return CARDS[metric].better == "lower"


def _once(met: Sequence[Met], metric: str) -> Sequence[Met]:
    """Of pairs that differ in their attack alone the first, for what no attack moves: it would count several times."""
    if metric not in CARDS or CARDS[metric].kind == "privacy":
        return met
    return list({pair.cells[0].design.apart_from("attack", "device"): pair for pair in reversed(met)}.values())[::-1]


def _apart(one: Item, other: Item) -> str:
    """Why two items of one name are no pair; empty where they are."""
    if one.length != other.length:
        return "of other lengths"
    return "of other texts" if one.truth_ids and other.truth_ids and one.truth_ids != other.truth_ids else ""


def _name(record: Record) -> str:
    return f"{record.cell.readable}-{record.cell.id}"


def _machine(record: Record) -> tuple[object, ...]:
    """Where a record's times were taken."""
    where = record.environment
    return (where.get("cpu") or {}).get("name"), where.get("accelerator"), where.get("torch_threads")
