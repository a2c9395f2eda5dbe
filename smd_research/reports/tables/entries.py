"""Points as entries of a table."""

import math
from collections.abc import Callable
from typing import Literal

from smd_research.reports.points import Point
from smd_research.reports.render import numbers
from smd_research.reports.tables.table import TableEntry

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


_WRITTEN: dict[str, Callable[[float], str]] = {
    "share": numbers.share,
    "leak": numbers.share,
    "number": numbers.quantity,
    "ratio": lambda value: f"{value:.2f}x",
    "bytes": numbers.byte_count,
    "count": lambda value: f"{value:,.0f}",
    "tiny": lambda value: f"{value:.1e}",
}
