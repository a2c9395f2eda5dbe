"""Tables as text: terminal, Markdown, CSV; and as the files a command leaves."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from smd_research.core.whole_file import write_whole
from smd_research.reports.figures.table import save_png
from smd_research.reports.render.latex import latex
from smd_research.reports.tables.table import Table, TableEntry, broken

_NARROW = 14
"""Names wider than this are broken at underscores and spaces in terminal columns and in headings."""

_NARROW_TITLE = 10

_PIPE_WIDTH = 140


def show(table: Table, console: Console | None = None) -> None:
    """Print a table; a pipe or a file, which has no width of its own, gets room for the whole of it."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=max(console.width, _PIPE_WIDTH))
    console.print(terminal(fitted(table, console)))


def fitted(table: Table, console: Console) -> Table:
    """The table without the last columns that a console has no room for, and a footnote that says so."""
    kept, room = len(table.columns), Console(width=1000)
    while kept > 1 and room.measure(terminal(_first(table, kept))).maximum > console.width:
        kept -= 1
    if kept == len(table.columns):
        return table
    left_out = ", ".join(column.title for column in table.columns[kept:])
    return replace(_first(table, kept), footnotes=(*table.footnotes, f"No room here for: {left_out}."))


def _first(table: Table, columns: int) -> Table:
    return replace(table, columns=table.columns[:columns], rows=tuple(row[:columns] for row in table.rows))


def terminal(table: Table) -> rich_table.Table:
    """The table for a rich console: leaks coloured from green to red, their interval dimmed under them."""
    shown = rich_table.Table(
        title=escape(table.title),
        caption=escape("\n".join(table.notes)) or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    shown.title_style, shown.caption_style, shown.caption_justify = "bold", "dim", "left"
    for column in table.columns:
        heading = Text(broken(column.title, _NARROW_TITLE))
        if column.unit:
            heading.append(f"\n{broken(column.unit, _NARROW_TITLE)}", style="dim")
        shown.add_column(heading, justify=column.align, no_wrap=True)
    for row in table.rows:
        shown.add_row(*(_terminal_entry(cell) for cell in row))
    return shown


def markdown(table: Table) -> str:
    """The table as GitHub Markdown: title, rows with intervals in brackets, footnotes."""
    headings = [f"{c.title} ({c.unit})" if c.unit else c.title for c in table.columns]
    rules = ["---" if column.align == "left" else "---:" for column in table.columns]
    rows = [[_with_interval(cell) for cell in row] for row in table.rows]
    lines = [f"### {table.title}", "", *(_markdown_row(row) for row in (headings, rules, *rows))]
    if table.notes:
        lines += ["", *(f"- {_escape(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """The table as CSV: text as it is, a number followed by its ``low``, ``high``, ``n`` and ``cells``."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    numeric = [any(not math.isnan(row[i].value) for row in table.rows) for i in range(len(table.columns))]
    heading: list[str] = []
    for column, is_number in zip(table.columns, numeric, strict=True):
        name = f"{column.title} ({column.unit})" if column.unit else column.title
        heading += [name, *(f"{name} {word}" for word in ("low", "high", "n", "cells"))] if is_number else [name]
    rows.writerow(heading)
    for row in table.rows:
        values: list[object] = []
        for cell, is_number in zip(row, numeric, strict=True):
            values += _csv_entry(cell) if is_number else [cell.text]
        rows.writerow(values)
    return buffer.getvalue()


def write_table(table: Table, folder: Path, name: str, claims: Table | None = None) -> tuple[Path, ...]:
    """Write ``name.md``, ``name.csv``, ``name.tex`` and ``name.png`` into a folder.

    Args:
        table: what was measured.
        folder: where to.
        name: of the files.
        claims: what was expected, beside it and with verdicts: follows in the same files, and as ``name.claims.csv``.

    Returns:
        The paths.

    Raises:
        RecordError: one cannot be written; what stood in its place is as it was.
    """
    texts = table_texts(table, claims)
    for ending, text in texts.items():
        write_whole(folder / f"{name}.{ending}", text.encode())
    save_png(table, folder / f"{name}.png")
    return tuple(folder / f"{name}.{ending}" for ending in (*texts, "png"))


def table_texts(table: Table, claims: Table | None = None) -> dict[str, str]:
    """A table as Markdown, CSV and LaTeX, by the ending of its files, with what is claimed beside it."""
    shown = [table, *([claims] if claims else [])]
    return {
        "md": "\n".join(map(markdown, shown)),
        "csv": comma_separated(table),
        **({"claims.csv": comma_separated(claims)} if claims else {}),
        "tex": "\n".join(map(latex, shown)),
    }


def _terminal_entry(cell: TableEntry) -> Text:
    text = Text(broken(cell.text, _NARROW), style=_leak_style(cell.shade))
    if cell.interval and cell.shade is not None:
        text.append(f"\n{cell.interval}", style="dim")
    return text


def _leak_style(shade: float | None) -> str:
    if shade is None:
        return ""
    return "bold red" if shade >= 0.5 else "yellow" if shade >= 0.1 else "green"


def _with_interval(cell: TableEntry) -> str:
    text = f"{cell.text} ({cell.interval})" if cell.interval else cell.text
    return _escape(text)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _markdown_row(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _csv_entry(cell: TableEntry) -> list[object]:
    if math.isnan(cell.value):
        return [cell.text, "", "", "", " ".join(cell.ids)]
    bounds = ["" if math.isnan(x) else x for x in (cell.low, cell.high)]
    return [cell.value, *bounds, cell.n, " ".join(cell.ids)]
