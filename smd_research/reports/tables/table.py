"""A table as a model: columns, rows of entries, and what stands below; how it is written is for its renderers."""

import math
import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column: its heading, the unit or remark under it, and how it is aligned."""

    title: str
    unit: str = ""
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class TableEntry:
    """One place of a table.

    Attributes:
        text: as shown.
        interval: its 95 % interval as shown; may be empty.
        value: the number behind it, NaN for text, with ``low`` and ``high``.
        n: how many prompts.
        ids: the cells it comes from, so that every number can be traced.
        note: a remark, e.g. why an attack does not apply.
        shade: 0 (nothing leaked) to 1 (all leaked) where the table is coloured by leak; else None.
    """

    text: str
    interval: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    ids: tuple[str, ...] = ()
    note: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a title and what a reader must know below.

    Attributes:
        title: heading.
        columns: headings of the rows' entries.
        rows: one entry a column.
        footnotes: remarks.
        sample: how much it rests on, e.g. ``20 prompts a cell, seed 0``.
        command: what makes it again.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    footnotes: tuple[str, ...] = ()
    sample: str = ""
    command: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """All that stands below: the footnotes, the sample and the command."""
        made = f"Made by: {self.command}" if self.command else ""
        sample = f"{self.sample}." if self.sample else ""
        return (*self.footnotes, *(note for note in (sample, made) if note))


def broken(name: str, width: int) -> str:
    """A long name in lines no wider than ``width``, broken after underscores and at spaces."""
    lines = [""]
    for part in re.split(r"(?<=_)|(?<= )", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
