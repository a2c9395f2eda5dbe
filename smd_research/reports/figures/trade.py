"""What each setting of a defense gives and takes: a row a setting; leak, utility and time side by side."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.reports.batteries import Battery, batteries
from smd_research.reports.figures.style import (
    CATEGORIES,
    INK,
    LEAK,
    QUIET,
    RULE,
    house_style,
    new_figure,
    percent_axis,
    save,
)

_FLOOR = 1e-6
"""Where a logarithmic axis of utility begins: exact settings differ from the plain model by rounding only."""

_REMARK = 1.08
"""Where the attack is named, right of 100 %."""


def trade(
    frame: pd.DataFrame,
    path: str | os.PathLike[str],
    leak: str = "token_accuracy",
    utility: str = "kl",
    latency: str = "tpot_ms",
    unsaid: Sequence[str] = (),
    title: str = "",
    note: str = "",
) -> Path:
    """Write :func:`trade_figure` as PNG.

    Returns:
        The path.
    """
    return save(trade_figure(frame, leak, utility, latency, unsaid, title, note), Path(path))


def trade_figure(
    frame: pd.DataFrame,
    leak: str = "token_accuracy",
    utility: str = "kl",
    latency: str = "tpot_ms",
    unsaid: Sequence[str] = (),
    title: str = "",
    note: str = "",
) -> Figure:
    """A row for each setting: what the best attack recovers, with its 95 % interval and chance; utility; time.

    A setting that no attack of the battery reads has no leak to show: it is untested, and its row says so.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        leak: privacy metric of the left panel.
        utility: utility metric of the middle one.
        latency: cost metric of the right one.
        unsaid: options at the value that goes without saying, e.g. ``audit=none``: left out of the names.
        title: heading.
        note: a line below.

    Raises:
        RecordError: when no setting of the frame was attacked and timed.
    """
    shown = [battery for battery in batteries(frame) if battery.common(latency)]
    if not any(battery.tested for battery in shown):
        raise RecordError(f"no record has {leak} and {latency}: run attacks on a defense first")
    with house_style():
        figure = new_figure(10.6, 1.7 + 0.34 * len(shown))
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1.9, 1.0, 1.0))
        for place, battery in enumerate(shown):
            _leak(left, place, battery, leak)
        _dots(middle, [_mean(battery, utility) for battery in shown], CATEGORIES[0], CARDS[utility].ceiling == 0)
        _dots(right, [_mean(battery, latency) for battery in shown], CATEGORIES[2])
        several = len({battery.name for battery in shown}) > 1
        left.set_yticks(range(len(shown)), [_name(battery, unsaid, several) for battery in shown])
        left.set_ylim(len(shown) - 0.5, -0.5)
        left.grid(axis="y", visible=False)
        percent_axis(left, "x")
        left.set_xlim(-0.04, 1.9)
        left.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
        left.spines["bottom"].set_bounds(0, 1)
        left.set_xlabel(f"{CARDS[leak].label}, by the best attack", x=0.54 / 1.94)
        middle.set_xlabel(f"{CARDS[utility].heading}\nright is less faithful")
        right.set_xlabel(f"{CARDS[latency].heading}\nright is slower")
        chance = Line2D([], [], color=INK, marker="|", ls="", ms=11, mew=1.6, label="chance")
        left.legend(handles=[chance], loc="lower left", bbox_to_anchor=(0.0, 1.0), borderpad=0, fontsize=8.5)
        figure.suptitle(title or "What each setting leaks and costs", x=0.01, ha="left", fontsize=11, weight="bold")
        if note:
            figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=QUIET)
        return figure


def _leak(axes: Axes, place: int, battery: Battery, metric: str) -> None:
    """What the best attack recovers, beside chance, and its name."""
    best, chance = battery.best(metric), battery.chance(metric)
    if chance is not None:
        axes.plot(chance.value, place, "|", color=INK, ms=11, mew=1.6, zorder=2)
    if best is not None and battery.tested:
        if not math.isnan(best.low):
            axes.plot([best.low, best.high], [place, place], color=RULE, lw=5, solid_capstyle="butt", zorder=1)
        axes.plot(best.value, place, "o", color=LEAK, ms=8, zorder=3)
        remark = _words(best.attack.split(" ")[:1])
    else:
        remark = "untested: no attack here reads it"
    axes.text(_REMARK, place, remark, color=QUIET, fontsize=8, va="center", in_layout=False)


def _dots(axes: Axes, values: Sequence[float], colour: str, distance: bool = False) -> None:
    """One value a row; distances from the plain model on a logarithmic axis, whose first stretch is rounding."""
    known = [value for value in values if not math.isnan(value)] or [1.0]
    if distance:
        axes.set_xscale("log")
        axes.set_xlim(_FLOOR / 2, 3 * max(1.0, *known))
        axes.axvspan(_FLOOR / 2, 2 * _FLOOR, color=RULE, alpha=0.5, lw=0)
        axes.text(2 * _FLOOR, 1.01, " grey: exact", transform=axes.get_xaxis_transform(), color=QUIET, fontsize=8)
    else:
        axes.set_xlim(0, 1.15 * max(known))
    axes.plot([max(v, _FLOOR) if distance else v for v in values], range(len(values)), "o", color=colour, ms=7)
    axes.tick_params(axis="y", length=0)


def _mean(battery: Battery, metric: str) -> float:
    score = battery.common(metric)
    return score.value if score else math.nan


def _name(battery: Battery, unsaid: Sequence[str], several: bool) -> str:
    """What sets one setting apart, after the defense's own name where there are several or nothing else does."""
    options = [word for word in battery.label.split(" ") if word not in (battery.name, *unsaid)]
    if several:
        return _words([f"{battery.name} {', '.join(options)}".rstrip()])
    return _words(options) or f"{battery.name} as it is"


def _words(parts: Sequence[str]) -> str:
    return ", ".join(parts).replace("_", " ").replace("=", " ")
