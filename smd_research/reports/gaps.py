"""How far two sides of a table lie apart, prompt by prompt and over all seeds.

Cells of one side and of the other that differ in nothing but what both sides name were given the same prompts: what
varies from prompt to prompt does not count. Seeds are pooled; a text that several of them drew is one value, the mean
of its differences, so that the interval runs over texts.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS, PairedMean, paired_mean
from smd_research.records.items import Item
from smd_research.reports.comparing import Met
from smd_research.reports.points import Point, Series, Where, matched, rest
from smd_research.reports.sides import record_of

SEED = "seed"


@dataclass(frozen=True)
class Gap:
    """The mean of one side minus the other.

    Attributes:
        cells: the pairs that are pooled, one a seed.
        paired: the mean difference of their texts.
    """

    cells: Sequence[tuple[Point, Point]] = field(repr=False)
    paired: PairedMean

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all its cells."""
        return tuple(point.id for pair in self.cells for point in pair)


def gaps(found: Sequence[Point], of: Series, than: Where) -> list[Gap]:
    """The gap of every setting that both sides have.

    Args:
        found: the points of a table.
        of: one side, with the metric.
        than: labels of the other.

    Raises:
        RecordError: two cells share no prompts, or have no such metric prompt by prompt.
    """
    groups: dict[object, list[tuple[Point, Point]]] = defaultdict(list)
    for pair in matched(found, of, Series(of.quantity, than)):
        groups[rest(pair[0].asked, {*(of.where.keys() & than.keys()), SEED})].append(pair)
    return [_gap(pairs, of.quantity) for pairs in groups.values()]


def _gap(pairs: Sequence[tuple[Point, Point]], metric: str) -> Gap:
    texts: dict[object, list[float]] = defaultdict(list)
    for one, other in pairs:
        met = Met.of(record_of(one), record_of(other), (one, other))
        if why := met.obstacle(metric):
            raise RecordError(why)
        for flip in met.valued(metric):
            texts[_text(flip.items[0], one)].append(flip.difference)
    differences = [fmean(values) for values in texts.values()]
    return Gap(pairs, paired_mean(differences, CARDS[metric].scale))


def _text(item: Item, cell: Point) -> object:
    """What tells a text from others; where texts are not recorded, a prompt of another seed is another."""
    return tuple(item.truth_ids) or (cell.labels.get(SEED), item.prompt_id)
