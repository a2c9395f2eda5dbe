"""What is kept against what is found, a mark for each setting, and the settings that no other beats on both."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.reports.figures.placing import around, place_labels
from smd_research.reports.figures.style import (
    CATEGORIES,
    INK,
    MARKERS,
    QUIET,
    house_style,
    new_figure,
    percent_axis,
    save,
)
from smd_research.reports.points import Point, Series, Source, Where, fits, points
from smd_research.reports.render import numbers
from smd_research.reports.tradeoffs import Setting, paired, undominated

_SPOT = 10.0
"""Typographic points within which marks hide each other."""


@dataclass(frozen=True)
class Group:
    """Settings of one kind.

    Attributes:
        title: in the legend.
        where: labels of its points; a setting belongs to the first group that fits.
    """

    title: str
    where: Where = field(default_factory=dict)


def pareto(
    source: Source,
    path: str | os.PathLike[str],
    leak: str,
    utility: str,
    groups: Sequence[Group],
    names: Mapping[str, str],
    beside: Where,
    title: str = "",
    where: Where | None = None,
) -> Path:
    """Write :func:`pareto_figure` as PNG.

    Args:
        source: a frame of records.
        path: of the picture.
        leak: privacy metric of the horizontal axis.
        utility: utility metric of the vertical one.
        groups: kinds of settings, each in a colour.
        names: what each label that sets settings apart is called; one that is 0 or null goes without saying.
        beside: labels of the unprotected cell.
        title: heading of the figure.
        where: labels of the settings that are drawn.

    Returns:
        The path.
    """
    found = [point for point in points(source) if fits(point, where or {}) or fits(point, beside)]
    return save(pareto_figure(found, leak, utility, groups, names, beside, title), Path(path))


def pareto_figure(
    found: Sequence[Point],
    leak: str,
    utility: str,
    groups: Sequence[Group],
    names: Mapping[str, str],
    beside: Where,
    title: str = "",
) -> Figure:
    """A mark for each setting with its 95 % intervals; left leaks less, up keeps more; the best are joined and named.

    Args:
        found: all points.
        leak: privacy metric of the horizontal axis.
        utility: utility metric of the vertical one.
        groups: kinds of settings, each in a colour.
        names: see :func:`pareto`.
        beside: labels of the unprotected cell, whose utility is a dashed line.
        title: heading of the figure.

    Raises:
        RecordError: when no setting has both.
    """
    settings = paired(found, leak, utility)
    if not settings:
        raise RecordError(f"no record has both {leak} and {utility}: run the attacks first")
    best = undominated(settings)
    with house_style():
        figure = new_figure(8.2, 5.2)
        axes = figure.add_subplot()
        for number, group in enumerate(groups):
            members = [one for one in settings if _group(one, groups) == group]
            _marks(axes, members, CATEGORIES[number % len(CATEGORIES)], MARKERS[number % len(MARKERS)])
        axes.plot(*zip(*(one.place for one in best), strict=True), color=QUIET, lw=1.2, zorder=2)
        for plain in Series(utility, beside).points(found):
            axes.axhline(plain.value, color=INK, lw=1.0, ls="--", zorder=1)
        percent_axis(axes, "x")
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_xlabel(f"{CARDS[leak].heading}: left is more private")
        axes.set_ylabel(f"{CARDS[utility].heading}: up is more useful")
        axes.set_title(title)
        drawn = [(n, g) for n, g in enumerate(groups) if any(_group(one, groups) == g for one in settings)]
        keys = [Line2D([], [], color=CATEGORIES[n], marker=MARKERS[n], ls="", label=g.title) for n, g in drawn]
        keys.append(Line2D([], [], color=INK, ls="--", lw=1.0, label="unprotected"))
        axes.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
        figure.draw_without_rendering()
        places = [one.place for one in best]
        texts = [_name(one, names) + _crowd(axes, one, settings) for one in best]
        place_labels(axes, places, texts, avoid=[around(axes, one.place) for one in settings])
        return figure


def _group(one: Setting, groups: Sequence[Group]) -> Group | None:
    return next((group for group in groups if fits(one.leak, group.where)), None)


def _marks(axes: Axes, members: Sequence[Setting], colour: str, marker: str) -> None:
    for one in members:
        x, y = one.place
        if not math.isnan(one.leak.low):
            axes.plot([one.leak.low, one.leak.high], [y, y], color=colour, lw=0.8, alpha=0.5, zorder=2)
        if not math.isnan(one.utility.low):
            axes.plot([x, x], [one.utility.low, one.utility.high], color=colour, lw=0.8, alpha=0.5, zorder=2)
        axes.plot(x, y, marker, color=colour, ms=7, mec="white", mew=0.6, zorder=3)


def _crowd(axes: Axes, one: Setting, settings: Sequence[Setting]) -> str:
    """How many other marks stand on the spot of a named one, as a second line; empty where it can be seen."""
    spots = [axes.transData.transform(other.place) for other in settings if other is not one]
    own, near = axes.transData.transform(one.place), _SPOT * axes.figure.dpi / 72
    hidden = sum(math.dist(own, spot) < near for spot in spots)
    return f"\nand {hidden} more here" if hidden > 1 else ""


def _name(one: Setting, names: Mapping[str, str]) -> str:
    """The options that are on."""
    labels = one.leak.labels
    said = [f"{name} {numbers.label(labels[key])}" for key, name in names.items() if labels.get(key)]
    return ", ".join(said) or "none"
