"""Which of several prompts is real: what each line of evidence finds, beside what it may hope for."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.metrics.streams import JUDGES
from smd_research.reports.figures.style import CATEGORIES, INK, LEAK, QUIET, house_style, new_figure, percent_axis, save
from smd_research.reports.points import Point, Series, Source, Where, points


@dataclass(frozen=True)
class Judged:
    """What one line of evidence found: its share with interval, and the posterior it had in its pick."""

    name: str
    found: Point
    hope: float


def judges(source: Source, path: str | os.PathLike[str], where: Where | None = None, title: str = "") -> Path:
    """Write :func:`judges_figure` as PNG.

    Returns:
        The path.
    """
    return save(judges_figure(source, where, title), Path(path))


def judges_figure(source: Source, where: Where | None = None, title: str = "") -> Figure:
    """A line for each kind of evidence: real streams found with their 95 % interval, beside chance and the claim.

    A short upright mark is the evidence's own largest posterior, which is what an attacker who believes it hopes for.

    Args:
        source: a frame of records.
        where: labels of the one cell that is shown.
        title: heading of the figure.

    Raises:
        RecordError: when nothing was judged, or in more than one cell.
    """
    found = points(source)
    shown = _judged(found, where or {})
    if not shown:
        raise RecordError("no stream was judged: run attack=pick_stream on defense=po first")
    if len({one.found.id for one in shown}) > 1:
        raise RecordError("streams were judged in several cells: choose one by its labels")
    with house_style():
        figure = new_figure(7.6, 1.1 + 0.34 * len(shown))
        axes = figure.add_subplot()
        places = np.arange(len(shown))[::-1]
        for place, one in zip(places, shown, strict=True):
            point = one.found
            if not math.isnan(point.low):
                axes.plot([point.low, point.high], [place] * 2, color=CATEGORIES[0], lw=2.4, alpha=0.45, zorder=2)
            axes.plot([point.value], [place], "o", color=CATEGORIES[0], ms=7, mec="white", mew=0.8, zorder=4)
            axes.plot([one.hope], [place], "|", color=LEAK, ms=13, mew=1.8, zorder=3)
        for name, quantity, style in (("chance", "stream_chance", "--"), ("claimed bound", "nominal_bound", ":")):
            level = [p.value for p in Series(quantity, where or {}).points(found) if p.id == shown[0].found.id]
            if level:
                axes.axvline(level[0], color=QUIET, lw=1.2, ls=style, zorder=1, label=name)
        axes.plot([], [], "o", color=CATEGORIES[0], mec="white", label="real streams found, 95 % interval")
        axes.plot([], [], "|", color=LEAK, ms=13, mew=1.8, label="largest posterior of this evidence")
        axes.set_yticks(places, [one.name for one in shown], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        percent_axis(axes, "x")
        axes.set_xlabel("prompts whose real stream was picked")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
        axes.set_title(title or "Which stream is real? By line of evidence")
        return figure


def _judged(found: Sequence[Point], where: Where) -> list[Judged]:
    """What each judge found, in the order in which they are listed."""
    shown = []
    for judge in JUDGES:
        hopes = {p.id: p.value for p in Series(f"max_posterior_{judge}", where).points(found)}
        for point in Series(f"found_{judge}", where).points(found):
            name = CARDS[f"found_{judge}"].label.removeprefix("found by ")
            shown.append(Judged(name, point, hopes.get(point.id, math.nan)))
    return shown
