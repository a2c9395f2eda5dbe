"""Several sides beside each other, and how far they lie apart prompt by prompt."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from smd_research.core.errors import ConfigError
from smd_research.metrics import CARDS
from smd_research.records.options import Label
from smd_research.reports.epsilons import notion_of_label, the_one
from smd_research.reports.gaps import gaps
from smd_research.reports.points import Point, Series, Source, Where, fits, points
from smd_research.reports.render import numbers
from smd_research.reports.rows import rows_of, said
from smd_research.reports.tables.entries import absent, head, labelled
from smd_research.reports.tables.table import Column, Table, TableEntry

HOW = (
    "Differences are means prompt by prompt, seeds pooled, with the 95 % interval of such pairs; a text that several "
    "seeds drew counts once."
)


def differences(
    source: Source,
    quantity: str,
    rows: Mapping[str, Sequence[Label] | None],
    sides: Mapping[str, Where],
    between: Sequence[Sequence[str]],
    title: str = "",
    notes: Sequence[str] = (),
    unset: Mapping[str, str] | None = None,
) -> Table:
    """A row a setting: the mean of every side over its seeds, then the differences asked for.

    Args:
        source: a frame of records, whose folders are read for their prompts.
        quantity: a metric that is a share, e.g. ``token_accuracy``.
        rows: labels that make a row, as those of :func:`smd_research.reports.tables.layout.layout`.
        sides: by name, the labels that tell its cells, e.g. ``{plain: {attack.mode: bayes}}``.
        between: pairs of sides, the first minus the second.
        title: heading.
        notes: footnotes, after the table's own.
        unset: what stands for a label that a cell does not set; without it "none".

    Raises:
        ConfigError: the metric is no share, or a difference names no two sides.
        RecordError: two cells share no prompts, or their prompts are not at hand.
    """
    _check(quantity, sides, between)
    found = points(source)
    units = {name: the_one(notion_of_label(point.labels, name) for point in found) for name in rows}
    heads = [head(name, unit) for name, unit in units.items()]
    heads += [Column(name, "recovered" if CARDS[quantity].kind == "privacy" else "") for name in sides]
    heads += [Column(f"{one} - {other}", "95 % interval") for one, other in between]
    body = []
    for row in rows_of(found, rows):
        members = [point for point in found if fits(point, row)]
        labels = [labelled(name, value, members, units[name] is None) for name, value in said(row, unset).items()]
        means = [_mean(members, Series(quantity, where)) for where in sides.values()]
        apart = [_difference(members, Series(quantity, sides[one]), sides[other]) for one, other in between]
        body.append((*labels, *means, *apart))
    return Table(title, tuple(heads), tuple(body), (HOW, *notes))


def _check(quantity: str, sides: Mapping[str, Where], between: Sequence[Sequence[str]]) -> None:
    if quantity not in CARDS or CARDS[quantity].scale not in ("rate", "excess"):
        raise ConfigError(f"view differences: quantity={quantity} is no share: take one as token_accuracy")
    for pair in between:
        if len(pair) != 2 or not set(pair) <= set(sides):
            raise ConfigError(f"view differences: between={list(pair)} is no pair of sides: take two of {list(sides)}")


def _mean(members: Sequence[Point], side: Series) -> TableEntry:
    """The mean of a side's seeds; the interval stands at the differences."""
    found = side.points(members)
    if not found:
        return absent([point for point in members if fits(point, side.where)])
    mean, ids = fmean(point.value for point in found), tuple(point.id for point in found)
    shade = min(max(mean, 0.0), 1.0) if CARDS[side.quantity].kind == "privacy" else None
    return TableEntry(numbers.share(mean), value=mean, n=sum(point.n for point in found), ids=ids, shade=shade)


def _difference(members: Sequence[Point], of: Series, than: Where) -> TableEntry:
    found = gaps(members, of, than)
    if not found:
        return TableEntry(numbers.PENDING, note="a side has not been measured")
    if len(found) > 1:
        raise ConfigError(f"view differences: a row has {len(found)} settings: give the rows another label")
    paired = found[0].paired
    interval = f"{_points(paired.low)} to {_points(paired.high)}"
    return TableEntry(_points(paired.value), interval, paired.value, paired.low, paired.high, paired.n, found[0].ids)


def _points(value: float) -> str:
    """A difference of shares, in per cent with its sign."""
    return f"{100 * value:+.1f} %"
