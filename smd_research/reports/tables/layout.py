"""A declared table: which labels make a row, which quantity of which points makes a column.

It can be shown before it is complete: what has not been measured stands as ``...``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from smd_research.core.errors import RecordError
from smd_research.records.options import Label
from smd_research.reports.epsilons import notion_of_label, the_one
from smd_research.reports.points import Point, Series, Source, Where, apart, fitting, points
from smd_research.reports.rows import rows_of, said
from smd_research.reports.tables.entries import Show, absent, entry, head, labelled
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
    found = fitting(points(source), where or {})
    units = {name: the_one(notion_of_label(point.labels, name) for point in apart(found)) for name in rows}
    heads = (*(head(name, unit) for name, unit in units.items()), *(Column(f.title, f.unit) for f in columns))
    body = []
    for row in rows_of(found, rows):
        members = fitting(found, row)
        labels = [labelled(name, value, members, units[name] is None) for name, value in said(row, unset).items()]
        body.append((*labels, *(_entry(one, members, row) for one in columns)))
    return Table(title, heads, tuple(body), tuple(notes))


def _entry(column: Figures, members: Sequence[Point], row: Mapping[str, Label]) -> TableEntry:
    found = Series(column.quantity, column.where).points(members)
    if not found:
        return absent(fitting(members, column.where))
    if len({point.id for point in found}) > 1:
        if column.best is None:
            raise RecordError(
                f"{len(found)} measurements of {column.quantity} belong in one place of column '{column.title}', row "
                f"{dict(row)}: give the table's rows another label, or the column a 'where' or 'best'"
            )
        found.sort(key=lambda point: point.value, reverse=column.best == "largest")
    return entry(found[0], column.show)
