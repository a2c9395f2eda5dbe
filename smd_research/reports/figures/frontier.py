"""The frontier of privacy, utility and latency."""

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.reports.batteries import Score, batteries
from smd_research.reports.figures.placing import around, place_labels
from smd_research.reports.figures.style import (
    INK,
    LEAK,
    QUIET,
    RULE,
    SEQUENTIAL,
    house_style,
    new_figure,
    percent_axis,
    save,
)
from smd_research.reports.tables.table import broken

_KL_FLOOR = 1e-3
"""Below this a reader of the text sees no difference; exact defenses (1e-12) share the end of the colour scale."""


@dataclass(frozen=True)
class FrontierPoint:
    """A defense on the frontier: label, family, latency, leak of the best attack, chance level, utility loss."""

    label: str
    family: str
    latency: float
    leak: Score
    chance: float
    loss: float


def frontier(
    frame: pd.DataFrame,
    path: str | os.PathLike[str],
    leak: str = "span_exact",
    latency: str = "tpot_ms",
    utility: str = "kl",
    title: str = "",
) -> Path:
    """Write :func:`frontier_figure` as PNG.

    Returns:
        The path.
    """
    return save(frontier_figure(frame, leak, latency, utility, title), Path(path))


def frontier_figure(
    frame: pd.DataFrame, leak: str = "span_exact", latency: str = "tpot_ms", utility: str = "kl", title: str = ""
) -> Figure:
    """Privacy against latency, coloured by utility: up is private, left is fast, dark is faithful.

    Privacy is one minus what the best attack of the battery recovers, with its 95 % interval; a short line marks what
    chance would leave.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        leak: privacy metric of the vertical axis.
        latency: cost metric of the horizontal axis.
        utility: utility metric of the colour.
        title: heading; says what is shown by default.

    Raises:
        RecordError: when no defense of the frame has all it takes.
    """
    points = frontier_points(frame, leak, latency, utility)
    if not points:
        raise RecordError(f"no record has {leak} and {latency}: run attacks on a defense first")
    with house_style():
        figure = new_figure(8.2, 5.2)
        axes = figure.add_subplot()
        norm = _loss_norm([point.loss for point in points], utility)
        shown = axes.scatter(
            [p.latency for p in points],
            [1 - p.leak.value for p in points],
            c=[_visible(p.loss, norm) for p in points],
            cmap=SEQUENTIAL, norm=norm, s=110, edgecolors=INK, linewidths=0.8, zorder=4,
        )  # fmt: skip
        for point in points:
            _error_bar(axes, point)
        _connect(axes, points)
        percent_axis(axes)
        _latency_axis(axes, [p.latency for p in points])
        axes.set_xlabel(f"{CARDS[latency].heading}, lower is faster")
        axes.set_ylabel(f"privacy: 1 - {CARDS[leak].label} by the best attack")
        axes.set_title(title or "Privacy, latency and utility of each defense")
        if any(not math.isnan(point.chance) for point in points):
            mark = Line2D([], [], color=LEAK, marker="_", ls="", ms=14, mew=1.6, label="what chance alone would leave")
            axes.legend(handles=[mark], loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0, fontsize=8.5)
        bar = figure.colorbar(shown, ax=axes, pad=0.02, fraction=0.05, aspect=28)
        bar.set_label(f"{CARDS[utility].heading}, lower is more faithful")
        bar.outline.set_visible(False)
        figure.draw_without_rendering()
        texts = [f"{point.label}\n{broken(point.leak.attack, 20)}" for point in points]
        bars = [(p.latency, 1 - p.leak.high, p.latency, 1 - p.leak.low) for p in points if not math.isnan(p.leak.low)]
        levels = [(p.latency, 1 - p.chance) for p in points if not math.isnan(p.chance)]
        marks = [around(axes, level, wide=8.0, high=2.0) for level in levels]
        place_labels(axes, [(p.latency, 1 - p.leak.value) for p in points], texts, avoid=[*bars, *marks])
        return figure


def frontier_points(frame: pd.DataFrame, leak: str, latency: str, utility: str) -> list[FrontierPoint]:
    """The defenses of a frame that were attacked and timed.

    A defense that met no attack but the baselines is left out, unless none met more: its privacy is untested.
    """
    found = batteries(frame)
    tested = [battery for battery in found if battery.tested]
    points = []
    for battery in tested or found:
        best, speed, loss = battery.best(leak), battery.common(latency), battery.common(utility)
        if best is None or speed is None:
            continue
        chance = battery.chance(leak)
        points.append(
            FrontierPoint(
                battery.label, battery.name, speed.value, best, chance.value if chance else math.nan,
                loss.value if loss else math.nan,
            )
        )  # fmt: skip
    return points


def _error_bar(axes: Axes, point: FrontierPoint) -> None:
    leak = point.leak
    if not math.isnan(leak.low):
        axes.plot([point.latency] * 2, [1 - leak.high, 1 - leak.low], color=QUIET, lw=1.2, zorder=3)
    if not math.isnan(point.chance):
        axes.plot([point.latency], [1 - point.chance], marker="_", ms=14, mew=1.6, color=LEAK, zorder=2)


def _connect(axes: Axes, points: Sequence[FrontierPoint]) -> None:
    """A thin line through the settings of one defense, so that a family reads as one."""
    families: dict[str, list[FrontierPoint]] = defaultdict(list)
    for point in points:
        families[point.family].append(point)
    for family in families.values():
        places = [(p.latency, 1 - p.leak.value) for p in family]
        axes.plot(*zip(*places, strict=True), color=RULE, lw=1.4, zorder=1)


def _loss_norm(losses: Sequence[float], utility: str) -> Normalize:
    known = [loss for loss in losses if not math.isnan(loss)] or [1.0]
    if utility == "kl":
        return LogNorm(_KL_FLOOR, max(*known, 10 * _KL_FLOOR, 1.0))
    low, high = min(known), max(known)
    return Normalize(low, high if high > low else low + 1)


def _visible(loss: float, norm: Normalize) -> float:
    return max(loss, float(norm.vmin or 0.0)) if not math.isnan(loss) else math.nan


def _latency_axis(axes: Axes, latencies: Sequence[float]) -> None:
    low, high = min(latencies), max(latencies)
    if high > 4 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 2.2)
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        if high < 30 * low:
            axes.xaxis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5)))
    else:
        span = max(high - low, 0.1 * high)
        axes.set_xlim(max(0.0, low - 0.25 * span), high + 0.5 * span)
