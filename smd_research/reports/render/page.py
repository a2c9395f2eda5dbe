"""A results folder as one HTML page: what leaked, as tables and a figure, and every attacked prompt.

The page stands alone: style and figure are inside it, nothing is fetched, no script runs. It shows the prompts in
clear, so it is as confidential as they are.
"""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.core.whole_file import write_whole
from smd_research.records.frame import folder_of, has_metric, load, readable
from smd_research.records.items import Item, read_items
from smd_research.records.record import NO_TEXTS, Record
from smd_research.reports.batteries import batteries, headings
from smd_research.reports.figures.frontier import frontier_figure
from smd_research.reports.figures.overview import overview_figure
from smd_research.reports.marks import Mark, TokenVerdict, marks
from smd_research.reports.render import numbers
from smd_research.reports.render.page_style import CSS
from smd_research.reports.tables.by_secret import by_secret, has_several_secrets
from smd_research.reports.tables.leak_matrix import leak_matrix
from smd_research.reports.tables.summary import summary
from smd_research.reports.tables.table import Table, TableEntry


def write_report(results_dir: str | os.PathLike[str], path: str | os.PathLike[str], prompts: int = 10) -> Path:
    """Write the report of a results folder.

    Args:
        results_dir: the folder that holds ``cells/``.
        path: of the page.
        prompts: how many prompts to show for each defense, under its best attack.

    Returns:
        The path.

    Raises:
        RecordError: when the folder holds no records, or the page cannot be written.
    """
    return write_whole(Path(path), page(load(results_dir), prompts).encode())


def page(frame: pd.DataFrame, prompts: int = 10, title: str = "Attacks against defenses") -> str:
    """The report of a frame of records; their folders are read for the prompts."""
    sections = [*(_all_secrets if has_several_secrets(frame) else _one_secret)(frame), *_prompts(frame, prompts)]
    n_cells, n_failed = frame["id"].nunique(), frame.loc[frame["status"] == "failed", "id"].nunique()
    counted = f"{n_cells} cells" + (f", {n_failed} failed" if n_failed else "")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<header><h1>{escape(title)}</h1>\n"
        f'<p class="quiet">{counted}. A laboratory result: nothing here secures production traffic by itself.</p>'
        f"</header>\n{''.join(sections)}</body>\n</html>\n"
    )


def table_html(table: Table) -> str:
    """A table as a section of the page."""
    heads = "".join(
        f'<th class="{column.align}">{_breakable(column.title)}<small>{escape(column.unit)}</small></th>'
        for column in table.columns
    )
    rows = "".join(
        "<tr>" + "".join(_cell_html(c, col.align) for c, col in zip(row, table.columns, strict=True)) + "</tr>\n"
        for row in table.rows
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<section><h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>{f'<ul class=quiet>{notes}</ul>' if notes else ''}</section>\n"
    )


def prompt_html(item: Item) -> str:
    """One prompt: its scores, the truth coloured by what was recovered, and the guess where it differs."""
    found = marks(item)
    scores = [
        f"{label} {numbers.share(item.metrics[name])}"
        for name, label in (("token_accuracy", "tokens"), ("span_exact", "secrets"))
        if item.metrics.get(name) is not None
    ]
    truth = "".join(_token_html(mark, mark.truth) for mark in found)
    lines = f'<p class="tokens">{truth}</p>' if found else ""
    if any(mark.verdict in (TokenVerdict.WRONG, TokenVerdict.ABSTAINED) for mark in found):
        guess = "".join(_token_html(m, "·" if m.verdict is TokenVerdict.ABSTAINED else m.guess) for m in found)
        lines += f'<p class="tokens guess">{guess}</p>'
    head = f"<h4>{escape(item.prompt_id)} <small>{escape(', '.join(scores))}</small></h4>"
    return f'<div class="prompt">{head}{lines}</div>\n'


def _cell_html(cell: TableEntry, align: str) -> str:
    shade = "" if cell.shade is None else f' style="--leak:{cell.shade:.3f}"'
    dark = " dark" if cell.shade is not None and cell.shade > 0.7 else ""
    kind = f"{align}{' leak' if cell.shade is not None else ''}{dark}"
    hint = f' title="{escape(cell.note)}"' if cell.note else ""
    small = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f'<td class="{kind}"{shade}{hint}>{escape(cell.text)}{small}</td>'


def _breakable(name: str) -> str:
    """A name that may be broken after an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _token_html(mark: Mark, text: str) -> str:
    secret = f' secret" title="{escape(mark.secret)}' if mark.secret else ""
    return f'<span class="{mark.verdict}{secret}">{escape(text)}</span>'


def _all_secrets(frame: pd.DataFrame) -> Iterable[str]:
    """Defenses of different secrets, grouped by it: no metric is common to them."""
    yield table_html(by_secret(frame))
    words = "Each defense by what its best attack recovers, how much slower than none it is, and its traffic"
    yield _figure_html("Overview", overview_figure(frame), words)


def _one_secret(frame: pd.DataFrame) -> Iterable[str]:
    yield table_html(summary(frame, "Summary"))
    yield from _leaks(frame)
    yield _frontier(frame)


def _leaks(frame: pd.DataFrame) -> Iterable[str]:
    for metric in ("span_exact", "token_accuracy"):
        if has_metric(frame, metric):
            yield table_html(leak_matrix(frame, metric))


def _frontier(frame: pd.DataFrame) -> str:
    leak = "span_exact" if has_metric(frame, "span_exact") else "token_accuracy"
    try:
        figure = frontier_figure(frame, leak=leak)
    except RecordError:
        return ""  # nothing was attacked and timed: there is no frontier
    return _figure_html(
        "Frontier", figure, "Each defense by latency and by what its best attack leaves hidden, coloured by utility"
    )


def _figure_html(title: str, figure: Figure, words: str) -> str:
    """A figure as a section of the page, with words for who does not see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=160, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<section><h2>{title}</h2><img alt="{words}" src="data:image/png;base64,{data}"></section>\n'


def _prompts(frame: pd.DataFrame, limit: int) -> Iterable[str]:
    """For each defense the prompts under its best attack, folded but for the first."""
    tested = [battery for battery in batteries(frame) if battery.tested]
    bests = [battery.best("span_exact") or battery.best("token_accuracy") for battery in tested]
    found = [(battery, best) for battery, best in zip(tested, bests, strict=True) if best is not None]
    shown = []
    for name, (_, best) in zip(headings([battery for battery, _ in found]), found, strict=True):
        shown += [(f"{name}: {best.attack}", record) for record in readable([folder_of(frame, best.id)])]
    if shown and limit > 0:
        yield _legend()
        yield from (_record_html(name, record, limit, i == 0) for i, (name, record) in enumerate(shown))
        yield "</section>\n"


def _legend() -> str:
    words: Sequence[TokenVerdict] = (TokenVerdict.RECOVERED, TokenVerdict.WRONG, TokenVerdict.ABSTAINED)
    spans = " ".join(f'<span class="{word}">{word}</span>' for word in words)
    return (
        "<section><h2>Prompt by prompt</h2>"
        f'<p class="quiet">Under the best attack on each defense: tokens {spans}, <span class="secret">secrets</span> '
        "underlined; below each prompt the guess, where it differs.</p>\n"
    )


def _record_html(name: str, record: Record, limit: int, is_open: bool) -> str:
    items = read_items(record.items)
    prompts = "" if record.texts else f'<p class="quiet">{NO_TEXTS}</p>'
    prompts += "".join(prompt_html(item) for item in items[:limit])
    more = f'<p class="quiet">{len(items) - limit} more prompts in the record.</p>' if len(items) > limit else ""
    return f"<details{' open' if is_open else ''}><summary>{escape(name)}</summary>{prompts}{more}</details>\n"
