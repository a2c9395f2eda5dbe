"""Every kind of defense in one figure, grouped by what is secret: what leaks, what it is worth, what it takes."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.reports.figures.style import CATEGORIES, INK, LEAK, QUIET, house_style, new_figure, percent_axis, save
from smd_research.reports.render import numbers
from smd_research.reports.tables.by_secret import SecretRow, rows_by_secret, written

_ROW, _GAP = 0.36, 0.9
"""Height of a row in inches, and the room above a group in rows."""


def overview(frame: pd.DataFrame, path: str | os.PathLike[str], title: str = "") -> Path:
    """Write :func:`overview_figure` as PNG.

    Returns:
        The path.
    """
    return save(overview_figure(frame, title), Path(path))


def overview_figure(frame: pd.DataFrame, title: str = "") -> Figure:
    """A row a defense: left what its best attack recovers, with chance; right how much slower than none, and traffic.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        title: heading; says what is shown by default.

    Raises:
        RecordError: when no defense of the frame was attacked.
    """
    rows = rows_by_secret(frame)
    if not rows:
        raise RecordError("no defense was attacked: run attacks on one first")
    places = _places(rows)
    with house_style():
        figure = new_figure(11.0, _ROW * (places[-1] + 1) + 1.5)
        leak, slower, traffic = figure.subplots(1, 3, sharey=True, width_ratios=(3.0, 1.4, 1.4))
        for row, place in zip(rows, places, strict=True):
            _draw_leak(leak, row, place)
            _draw_amount(slower, row.slower, place, "x")
            _draw_amount(traffic, row.traffic, place, "B")
        _name_groups(leak, rows, places)
        leak.set_yticks(places, [row.battery.defense for row in rows])
        leak.set_ylim(places[-1] + 0.6, -_GAP - 0.4)
        percent_axis(leak, "x")
        leak.set_xlabel("recovered by the best attack; short line: chance")
        _log_axis(slower, "time, times none's", "x")
        _log_axis(traffic, "bytes that cross", "B")
        for axes in (leak, slower, traffic):
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        figure.suptitle(title or "Every kind of defense, by what is secret", x=0.01, ha="left", weight="bold", size=12)
    return figure


def _places(rows: Sequence[SecretRow]) -> list[float]:
    """Where each row stands, downwards, with room above every group but the first."""
    places, at = [], 0.0
    for before, row in zip([None, *rows], rows, strict=False):
        at += _GAP if before is not None and before.secret is not row.secret else 0.0
        places.append(at)
        at += 1.0
    return places


def _name_groups(axes: Axes, rows: Sequence[SecretRow], places: Sequence[float]) -> None:
    for before, row, place in zip([None, *rows], rows, places, strict=False):
        if before is None or before.secret is not row.secret:
            words = f"secret: {row.secret.name} ({CARDS[row.secret.leak].label})"
            axes.text(0.0, place - 0.75, words, color=QUIET, size=9, va="center", transform=axes.get_yaxis_transform())


def _draw_leak(axes: Axes, row: SecretRow, place: float) -> None:
    leak = row.leak
    if not math.isnan(leak.low) and leak.high > 0:
        axes.plot([leak.low, leak.high], [place, place], color=LEAK, lw=2.2, alpha=0.4, solid_capstyle="butt")
    if row.chance is not None:
        axes.plot([row.chance], [place], marker="|", ms=13, mew=1.6, color=QUIET, zorder=2)
    if leak.value < 0:  # worse than what it is held against: at the edge, with its figure
        axes.plot([0.0], [place], "<", color=LEAK, ms=7, zorder=4)
        text = f"{100 * leak.value:.0f} %"
        axes.annotate(text, (0.0, place), (9, 0), textcoords="offset points", va="center", size=7.5, color=LEAK)
    else:
        axes.plot([leak.value], [place], "o", color=LEAK, ms=7, zorder=4)
    axes.annotate(
        _words(row), (1.0, place), (8, 0), ("axes fraction", "data"), "offset points", va="center", size=7.5, color=INK
    )


def _words(row: SecretRow) -> str:
    """The attack, and what the user is left with."""
    utility = row.utility
    if utility is None:
        return row.leak.attack
    return f"{row.leak.attack}\n{CARDS[utility.quantity].label} {written(utility)}"


def _draw_amount(axes: Axes, value: float | None, place: float, unit: str) -> None:
    if not value:
        return
    text = numbers.byte_count(value) if unit == "B" else f"{value:.1f}x"
    axes.plot([value], [place], "o", color=CATEGORIES[0], ms=6)
    axes.annotate(text, (value, place), (7, 0), textcoords="offset points", va="center", size=7.5)


def _log_axis(axes: Axes, words: str, unit: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(words)
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    write = (lambda x, _: numbers.byte_count(x)) if unit == "B" else (lambda x, _: f"{x:g}x")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(write))
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=3))
    axes.margins(x=0.35)
