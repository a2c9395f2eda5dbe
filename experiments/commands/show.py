"""What a person sees at the end of a command: one cell's numbers, or a sweep's table and figure."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS, Estimate
from smd_research.records import NO_TEXTS, Record, frame_of, read

KINDS = ("privacy", "utility", "cost")
LEAKS = ("token_recovery", "span_exact", "token_accuracy")
"""What a sweep shows of its attacks: the first of these that it holds."""

HEADLINE = {
    "leak": (
        *("token_recovery", "span_exact", "token_accuracy", "choice_top1", "stream_found", "attribute_accuracy"),
        *("rec_scratch", "rec_exposed", "output_changed", "head_overlap"),
    ),
    "utility": ("accuracy", "kl", "perplexity", "greedy_equal"),
    "cost": ("tpot_ms", "tune_s", "infer_s"),
}
"""What a reader wants first of one cell: of each line the first metric that it holds."""

CHANCE = {"choice_top1": "choice_chance", "stream_found": "stream_chance", "attribute_accuracy": "attribute_chance"}
"""Where the level of an attack that learned nothing has another name than ``control_`` and the metric's.

Whoever picks one of several streams is right at ``stream_chance``, whatever the picked one is scored by.
"""


def console() -> Console:
    """Where results go: stdout, as wide as the terminal, or wide enough for a table where there is none."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160)


def number(value: float, unit: str = "") -> str:
    """A value with three significant digits; shares as they are."""
    if math.isnan(value):
        return "–"
    text = f"{value:.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:.3g}"
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    return f"{text} {unit}".rstrip()


def interval(estimate: Estimate) -> str:
    """The 95 % interval, empty where there is none."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return ""
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def cell(folder: Path) -> None:
    """Print one record: every metric with its interval, grouped by kind, and where the record lies."""
    record = read(folder)
    for line in headline(record):
        print(line)
    if record.metrics:
        console().print(metrics_table(record))
    guarantee = record.environment.get("guarantee", "none")
    print(f"guarantee: {guarantee}\nrecord: {folder}")
    if not record.texts:
        print(NO_TEXTS)


def headline(record: Record) -> list[str]:
    """Leak, utility and cost of a cell, a line each where it has one; a leak with the level of chance."""
    lines = []
    for what, names in HEADLINE.items():
        name = next((name for name in names if name in record.metrics), None)
        if name is None:
            continue
        found, card = record.metrics[name], CARDS[name]
        chances = (CHANCE.get(name, f"control_{name}"), "stream_chance") if what == "leak" else ()
        levels = [record.metrics[chance].mean for chance in chances if chance in record.metrics]
        beside = f", chance {number(max(levels))}" if levels else ""
        lines.append(f"{what:<8} {card.label} {number(found.mean, card.unit)} {interval(found)}".rstrip() + beside)
    return lines


def metrics_table(record: Record) -> Table:
    """A record's metrics as a table for a terminal."""
    table = Table(title=record.cell.readable, title_justify="left", box=None, pad_edge=False)
    for heading in ("metric", "mean", "95 % interval", "n", "what"):
        table.add_column(heading, justify="right" if heading in ("mean", "n") else "left")
    for kind in KINDS:
        for name, card in CARDS.items():
            if card.kind == kind and name in record.metrics:
                e = record.metrics[name]
                table.add_row(name, number(e.mean, card.unit), interval(e), str(e.n), card.description, style=None)
        table.add_section()
    return table


def sweep(records: Sequence[Record], results_dir: Path, listed: bool = False) -> None:
    """Print the table of a sweep and draw its figure; n/a cells that nobody may attack stand as blanks.

    Where cells keep several kinds of secret, or are those that an experiment lists, both are grouped by what is secret.
    """
    if not records:
        return
    from smd_research.reports.tables.by_secret import rows_by_secret

    frame = frame_of(records)
    if not (frame["status"] == "ok").any():
        return
    print()
    secrets = {row.secret for row in rows_by_secret(frame)}
    grouped = len(secrets) > 1 or (listed and secrets)
    (_all_secrets if grouped else _one_secret)(frame, results_dir / "figures")
    print(f"records: {(results_dir / 'cells').resolve()}")


def _all_secrets(frame: pd.DataFrame, folder: Path) -> None:
    from smd_research.reports.figures.overview import overview
    from smd_research.reports.render.text import terminal
    from smd_research.reports.tables.by_secret import by_secret

    console().print(terminal(by_secret(frame)))
    _draw(overview, frame, folder / "overview.png")


def _one_secret(frame: pd.DataFrame, folder: Path) -> None:
    from smd_research.reports.figures.frontier import frontier
    from smd_research.reports.render.text import terminal
    from smd_research.reports.tables.leak_matrix import leak_matrix
    from smd_research.reports.tables.summary import summary

    console().print(terminal(summary(frame)))
    leak = next((name for name in LEAKS if (frame["metric"] == name).any()), None)
    if leak:
        console().print(terminal(leak_matrix(frame, leak)))
        _draw(partial(frontier, leak=leak), frame, folder / "frontier.png")


def _draw(figure: Callable[[pd.DataFrame, Path], Path], frame: pd.DataFrame, path: Path) -> None:
    try:
        print(f"figure: {figure(frame, path)}")
    except RecordError as error:  # nothing was attacked and timed, or the folder cannot be written
        print(f"no figure: {error}")
