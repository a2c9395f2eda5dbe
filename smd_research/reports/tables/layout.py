"""A declared table: which labels make a row, which quantity of which points makes a column.

It can be shown before it is complete: what has not been measured stands as ``...``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from smd_research.core.errors import RecordError
from smd_research.records.record import Status
from smd_research.reports.designs import Label
from smd_research.reports.epsilons import Notion, notion_of_label, the_one
from smd_research.reports.points import Point, Series, Source, Where, among, fits, points, same
from smd_research.reports.render import numbers
from smd_research.reports.tables.entries import Show, entry
from smd_research.reports.tables.table import Column, Table, TableEntry


@dataclass(frozen=True)
class Figures:
    """A column of figures.

    Attributes:
        title: heading.
        quantity: which quantity of the points of a row.
        where: labels that a row does not have but the column's points do, e.g. ``{mode: smd}``.
        unit: remark under the heading.
        show: how a figure is written; a leak is a share shaded by how much leaked.
        best: which of several points of a row is shown; without it there must be one.
    """

    title: str
    quantity: str
    where: Where = field(default_factory=dict)
    unit: str = ""
    show: Show = "number"
    best: Literal["largest", "smallest"] | None = None


def layout(
    source: Source,
    rows: Mapping[str, Sequence[Label] | None],
    columns: Sequence[Figures],
    title: str = "",
    where: Where | None = None,
    notes: Sequence[str] = (),
    unset: Mapping[str, str] | None = None,
) -> Table:
    """A table as declared.

    Args:
        source: a frame of records, or the cases of benches.
        rows: labels that make a row, each with its values in order, or None for those that there are. Where all are
            given, every combination has a row, measured or not.
        columns: of figures, after the labels.
        title: heading.
        where: labels of the points of this table.
        notes: footnotes.
        unset: what stands for a label that a cell does not set, e.g. ``{defense.reply: mga}``; without it "none".

    Raises:
        RecordError: when several points belong in one place, and the column says not which.
    """
    found = [point for point in points(source) if fits(point, where or {})]
    units = {name: the_one(notion_of_label(point.labels, name) for point in found) for name in rows}
    heads = (*(_head(name, unit) for name, unit in units.items()), *(Column(f.title, f.unit) for f in columns))
    body = []
    for row in _rows(found, rows):
        members = [point for point in found if fits(point, row)]
        words = {name: (unset or {}).get(name) if value is None else value for name, value in row.items()}
        labels = [_label(name, value, members, units[name] is None) for name, value in words.items()]
        body.append((*labels, *(_entry(one, members, row) for one in columns)))
    return Table(title, heads, tuple(body), tuple(notes))


def _rows(found: Sequence[Point], declared: Mapping[str, Sequence[Label] | None]) -> list[dict[str, Label]]:
    """The labels of every row, in the order declared, else of appearance."""
    names = list(declared)
    given = [declared[name] for name in names]
    rows: list[tuple[Label, ...]] = []
    if all(values is not None for values in given):
        rows += product(*(values or () for values in given))
    for point in found:
        row = tuple(point.labels.get(name) for name in names)
        wanted = all(values is None or among(label, values) for label, values in zip(row, given, strict=True))
        if wanted and not any(all(map(same, row, other)) for other in rows):
            rows.append(row)
    places = [_order(values, [row[i] for row in rows]) for i, values in enumerate(given)]
    rows.sort(key=lambda row: [place(label) for place, label in zip(places, row, strict=True)])
    return [dict(zip(names, row, strict=True)) for row in rows]


def _order(given: Sequence[Label] | None, met: Sequence[Label]) -> Callable[[Label], float]:
    """Where a label comes: as declared; else numbers by size, words as they were met."""
    order = list(given) if given is not None else list(dict.fromkeys(met))

    def place(label: Label) -> float:
        if given is None and isinstance(label, int | float):
            return float(label)
        return next(float(i) for i, other in enumerate(order) if same(label, other))

    return place


def _entry(column: Figures, members: Sequence[Point], row: Mapping[str, Label]) -> TableEntry:
    found = Series(column.quantity, column.where).points(members)
    if not found:
        return _absent([point for point in members if fits(point, column.where)])
    if len({point.id for point in found}) > 1:
        if column.best is None:
            raise RecordError(
                f"{len(found)} measurements of {column.quantity} belong in one place of column '{column.title}', row "
                f"{dict(row)}: give the table's rows another label, or the column a 'where' or 'best'"
            )
        found.sort(key=lambda point: point.value, reverse=column.best == "largest")
    return entry(found[0], column.show)


def _absent(cells: Sequence[Point]) -> TableEntry:
    """What stands where there is no figure: a failed cell, one that does not apply or has no such figure, or none."""
    for status, text in ((Status.FAILED, "failed"), (Status.MISSING, numbers.PENDING)):
        for point in cells:
            if point.status is status:
                return TableEntry(text, ids=(point.id,), note=point.reason)
    if not cells:
        return TableEntry(numbers.PENDING, note="not measured yet")
    return TableEntry(numbers.MISSING, ids=(cells[0].id,), note=cells[0].reason)


def _head(name: str, unit: Notion | None) -> Column:
    return Column(_readable(name), unit.unit if unit else "", align="left")


def _label(name: str, value: Label, members: Sequence[Point], said: bool) -> TableEntry:
    """A label of a row; it says itself what an epsilon is of where the heading cannot say it for all rows."""
    kinds = {kind.word for point in members if (kind := notion_of_label(point.labels, name))} if said else set()
    return TableEntry(" ".join([numbers.label(value), *(f"({word})" for word in sorted(kinds))]))


def _readable(name: str) -> str:
    """A label as a heading: an option without its part, words parted."""
    return name.rpartition(".")[2].replace("_", " ")
