"""Points as entries of a table."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from smd_research.records.options import Label
from smd_research.records.record import Status
from smd_research.reports.epsilons import Notion, notion_of_label
from smd_research.reports.points import Point
from smd_research.reports.render import numbers
from smd_research.reports.tables.table import Column, TableEntry

Show = Literal["share", "leak", "number", "ratio", "bytes", "count", "tiny"]
"""How a value is written."""


def entry(point: Point | None, show: Show = "share") -> TableEntry:
    """A point as it stands in a table, with its 95 % interval; ``–`` where there is none.

    Args:
        point: what was measured.
        show: how its value is written; a leak is a share shaded by how much leaked.
    """
    if point is None:
        return TableEntry(numbers.MISSING)
    share = show in ("share", "leak")
    interval = ""
    if share:
        interval = numbers.share_interval(point.low, point.high)
    elif show in ("number", "ratio"):
        interval = numbers.interval(point.low, point.high, point.value)
    shade = min(max(point.value, 0.0), 1.0) if show == "leak" and not math.isnan(point.value) else None
    return TableEntry(
        _WRITTEN[show](point.value), interval, point.value, point.low, point.high, point.n, (point.id,), shade=shade
    )


def absent(cells: Sequence[Point]) -> TableEntry:
    """What stands where there is no figure: a failed cell, one that does not apply or has no such figure, or none."""
    for status, text in ((Status.FAILED, "failed"), (Status.MISSING, numbers.PENDING)):
        for point in cells:
            if point.status is status:
                return TableEntry(text, ids=(point.id,), note=point.reason)
    if not cells:
        return TableEntry(numbers.PENDING, note="not measured yet")
    return TableEntry(numbers.MISSING, ids=(cells[0].id,), note=cells[0].reason)


def head(name: str, unit: Notion | None) -> Column:
    """The column of a label, with what its epsilons are of where they are all of one sort."""
    return Column(_readable(name), unit.unit if unit else "", align="left")


def labelled(name: str, value: Label, members: Sequence[Point], said: bool) -> TableEntry:
    """A label of a row; it says itself what an epsilon is of where the heading cannot say it for all rows."""
    kinds = {kind.word for point in members if (kind := notion_of_label(point.labels, name))} if said else set()
    return TableEntry(" ".join([numbers.label(value), *(f"({word})" for word in sorted(kinds))]))


def _readable(name: str) -> str:
    """A label as a heading: an option without its part, words parted."""
    return name.rpartition(".")[2].replace("_", " ")


_WRITTEN: dict[str, Callable[[float], str]] = {
    "share": numbers.share,
    "leak": numbers.share,
    "number": numbers.quantity,
    "ratio": lambda value: f"{value:.2f}x",
    "bytes": numbers.byte_count,
    "count": lambda value: f"{value:,.0f}",
    "tiny": lambda value: f"{value:.1e}",
}
