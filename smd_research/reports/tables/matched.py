"""What each family of defenses keeps at the same attack success: the table by which one chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from smd_research.core.errors import ConfigError
from smd_research.metrics import CARDS
from smd_research.records.options import Label
from smd_research.records.record import Status
from smd_research.reports.epsilons import notion_of_label, the_one
from smd_research.reports.points import Point, Source, Where, fits, points
from smd_research.reports.render import numbers
from smd_research.reports.rows import rows_of, said
from smd_research.reports.tables.entries import Show, absent, entry, head, labelled
from smd_research.reports.tables.table import Column, Table, TableEntry
from smd_research.reports.tradeoffs import Setting, paired, utility_at

LOWER_BOUND, UPPER_BOUND = "≥", "≤"
"""What stands before a figure of a family that leaks less than asked: it keeps that much, or more."""


def matched(
    source: Source,
    leak: str,
    utility: str,
    at: Sequence[float],
    series: Mapping[str, Sequence[Label] | None],
    title: str = "",
    where: Where | None = None,
    notes: Sequence[str] = (),
    unset: Mapping[str, str] | None = None,
    show: Show = "share",
) -> Table:
    """A row a family, a column a level of leak: the utility that it keeps there.

    The settings of a family are its points that differ in anything but the attack; of each the strongest attack counts.
    How utility is read between settings is for :func:`smd_research.reports.tradeoffs.utility_at`.

    Args:
        source: a frame of records, or the cases of benches.
        leak: what an attack recovers, e.g. ``token_recovery``.
        utility: what is kept, e.g. ``accuracy``.
        at: the levels of leak, each a share.
        series: labels that make a family, as the rows of :func:`smd_research.reports.tables.layout.layout`.
        title: heading.
        where: labels of the points of this table.
        notes: footnotes, after the table's own.
        unset: what stands for a label that a cell does not set; without it "none".
        show: how utility is written.

    Raises:
        ConfigError: when no level is given, or one is no share.
    """
    _check(at)
    found = [point for point in points(source) if fits(point, where or {})]
    units = {name: the_one(notion_of_label(point.labels, name) for point in found) for name in series}
    heads = [head(name, unit) for name, unit in units.items()]
    heads += [Column("settings"), Column("leak", "least to most")]
    heads += [Column(f"at {numbers.share(level)}", _heading(utility)) for level in at]
    body = []
    for row in rows_of(found, series):
        members = [point for point in found if fits(point, row)]
        settings = paired(members, leak, utility)
        tested = [one for one in settings if one.tested]
        labels = [labelled(name, value, members, units[name] is None) for name, value in said(row, unset).items()]
        counted = TableEntry(str(len(tested)), value=float(len(tested)))
        read = [_read(settings, members, level, show) for level in at]
        body.append((*labels, counted, _range(tested), *read))
    shown = {one.text[:1] for row in body for one in row[-len(at) :]}
    return Table(title, tuple(heads), tuple(body), (*_footnotes(found, leak, shown), *notes))


def _check(at: Sequence[float]) -> None:
    if not at or not all(isinstance(level, int | float) and 0 <= level <= 1 for level in at):
        raise ConfigError(f"view matched: at={list(at)}: give levels of leak between 0 and 1, e.g. [0.1, 0.5]")


def _read(settings: Sequence[Setting], members: Sequence[Point], level: float, show: Show) -> TableEntry:
    """The utility at one level; ``–`` where every setting leaks more, or none was attacked."""
    tested = [one for one in settings if one.tested]
    if not settings:
        return absent(members)
    if not tested:
        return TableEntry(numbers.MISSING, note="untested: no attack here reads it")
    found = utility_at(tested, level)
    if found is None:
        least = min(tested, key=lambda one: one.leak.value)
        note = f"every setting leaks more: {numbers.share(least.leak.value)} at least"
        return TableEntry(numbers.MISSING, ids=(least.leak.id,), note=note)
    made = replace(entry(found.utility, show), ids=found.ids)
    return (
        replace(made, text=f"{_sign(found.utility.quantity)} {made.text}", note="no setting leaks as much")
        if found.bound
        else made
    )


def _sign(quantity: str) -> str:
    """What stands before a bound, by the direction in which a quantity is better."""
    return LOWER_BOUND if quantity not in CARDS or CARDS[quantity].better == "higher" else UPPER_BOUND


def _range(settings: Sequence[Setting]) -> TableEntry:
    """The least and the most that the strongest attack finds in a family."""
    if not settings:
        return TableEntry(numbers.MISSING)
    least, most = (numbers.share(end(one.leak.value for one in settings)) for end in (min, max))
    return TableEntry(least if least == most else f"{least} to {most}")


def _heading(quantity: str) -> str:
    return CARDS[quantity].heading if quantity in CARDS else quantity.replace("_", " ")


def _footnotes(found: Sequence[Point], leak: str, shown: set[str]) -> list[str]:
    notes = [
        f"Leak: {_heading(leak)}, by the strongest attack on each setting. At a leak: the most that a setting keeps "
        "which leaks no more, on a straight line between two settings (a share of the prompts served with each)."
    ]
    for sign in sorted(shown & {LOWER_BOUND, UPPER_BOUND}):
        notes.append(f"{sign}: no setting leaks as much; what the best of them keeps.")
    if numbers.MISSING in shown:
        notes.append(f"{numbers.MISSING}: every setting leaks more, or no attack that reads it was run.")
    cells = {point.id: point.status for point in found if point.status in (Status.FAILED, Status.MISSING)}
    for status, words in ((Status.FAILED, "failed"), (Status.MISSING, "have not run")):
        if count := sum(one is status for one in cells.values()):
            notes.append(
                f"{count} cells {words} and are left out: a family may lack a setting, or its strongest attack."
            )
    return notes
