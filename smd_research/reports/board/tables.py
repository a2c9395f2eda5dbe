"""Tables as a board holds them: every entry with its cells, claims with their verdicts, and the same as CSV."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypedDict

from smd_research.reports.render.text import comma_separated
from smd_research.reports.tables.table import Table, TableEntry


@dataclass(frozen=True)
class BoardTable:
    """A table with its name, and the claims beside it, each with its verdict in the last column."""

    name: str
    table: Table
    claims: Table | None = None


class TableHead(TypedDict):
    """What the list of tables says of one."""

    name: str
    title: str
    sample: str
    verdicts: dict[str, int]


class TableDocument(TypedDict):
    """A table, or what is claimed beside it."""

    title: str
    columns: list[dict[str, str]]
    rows: list[list[dict[str, Any]]]
    notes: list[str]
    command: str
    csv: str


def table_head(one: BoardTable) -> TableHead:
    """A table in a line: title, what it rests on, and how many claims have which verdict."""
    verdicts = Counter(row[-1].text.rpartition(": ")[2] for row in one.claims.rows) if one.claims else Counter[str]()
    return TableHead(
        name=one.name, title=one.table.title, sample=one.table.sample, verdicts=dict(sorted(verdicts.items()))
    )


def table_document(table: Table) -> TableDocument:
    """A table as plain values; an entry names only what it has."""
    return TableDocument(
        title=table.title,
        columns=[{"title": column.title, "unit": column.unit, "align": column.align} for column in table.columns],
        rows=[[_entry(cell) for cell in row] for row in table.rows],
        notes=[*table.footnotes, *([f"{table.sample}."] if table.sample else [])],
        command=table.command,
        csv=comma_separated(table),
    )


def _entry(cell: TableEntry) -> dict[str, Any]:
    said: dict[str, Any] = {"text": cell.text, "interval": cell.interval, "note": cell.note, "ids": list(cell.ids)}
    said["shade"] = None if cell.shade is None or math.isnan(cell.shade) else round(cell.shade, 3)
    return {key: value for key, value in said.items() if value not in ("", None, [])}
