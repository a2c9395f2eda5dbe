"""What is kept against what is found, a curve a family: the picture of the table at matched attack success."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.records.options import Label
from smd_research.reports.figures.style import (
    CATEGORIES,
    INK,
    MARKERS,
    house_style,
    new_figure,
    percent_axis,
    save,
)
from smd_research.reports.points import Point, Series, Source, Where, fits, points
from smd_research.reports.render import numbers
from smd_research.reports.rows import rows_of, said
from smd_research.reports.tradeoffs import Setting, paired, undominated


def curves(
    source: Source,
    path: str | os.PathLike[str],
    leak: str,
    utility: str,
    series: Mapping[str, Sequence[Label] | None],
    title: str = "",
    where: Where | None = None,
    unset: Mapping[str, str] | None = None,
    beside: Where | None = None,
) -> Path:
    """Write :func:`curves_figure` as PNG.

    Args:
        source: a frame of records.
        path: of the picture.
        leak: privacy metric of the horizontal axis.
        utility: utility metric of the vertical one.
        series: labels that make a family, each with its values in order, or None for those that there are.
        title: heading of the figure.
        where: labels of the settings that are drawn.
        unset: what stands for a label that a cell does not set; without it the label goes unsaid.
        beside: labels of the unprotected cell.

    Returns:
        The path.
    """
    found = points(source)
    plain = Series(utility, beside).points(found) if beside else []
    shown = [point for point in found if fits(point, where or {})]
    return save(curves_figure(shown, leak, utility, series, title, unset, plain), Path(path))


def curves_figure(
    found: Sequence[Point],
    leak: str,
    utility: str,
    series: Mapping[str, Sequence[Label] | None],
    title: str = "",
    unset: Mapping[str, str] | None = None,
    plain: Sequence[Point] = (),
) -> Figure:
    """A mark for each setting with its 95 % intervals, and a line through those of a family that none of it beats.

    Left leaks less. Hollow marks are settings that another of the family beats.

    Args:
        found: all points.
        leak: privacy metric of the horizontal axis, by the strongest attack on each setting.
        utility: utility metric of the vertical one.
        series: labels that make a family.
        title: heading of the figure.
        unset: see :func:`curves`.
        plain: utility of the unprotected model, a dashed line.

    Raises:
        RecordError: when no setting was attacked and has both figures.
    """
    families = _families(found, leak, utility, series, unset)
    if not families:
        raise RecordError(f"no record has both {leak} and {utility}: run the attacks first")
    with house_style():
        figure = new_figure(8.2, 4.8)
        axes = figure.add_subplot()
        keys = []
        for number, (name, settings) in enumerate(families.items()):
            colour, marker = CATEGORIES[number % len(CATEGORIES)], MARKERS[number % len(MARKERS)]
            _family(axes, settings, colour, marker)
            keys.append(Line2D([], [], color=colour, marker=marker, ms=6, mec="white", mew=0.6, label=name))
        if plain:
            axes.axhline(max(point.value for point in plain), color=INK, lw=1.0, ls="--", zorder=1)
            keys.append(Line2D([], [], color=INK, ls="--", lw=1.0, label="unprotected"))
        percent_axis(axes, "x")
        if utility in CARDS and not CARDS[utility].unit:
            axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0, symbol=" %"))
        better = "down" if utility in CARDS and CARDS[utility].better == "lower" else "up"
        axes.set_xlabel(f"{CARDS[leak].heading}, by the strongest attack: left is more private")
        axes.set_ylabel(f"{CARDS[utility].heading}: {better} is more useful")
        axes.set_title(title)
        axes.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
        return figure


def _families(
    found: Sequence[Point],
    leak: str,
    utility: str,
    series: Mapping[str, Sequence[Label] | None],
    unset: Mapping[str, str] | None,
) -> dict[str, list[Setting]]:
    """The attacked settings of each family, by its name."""
    families = {}
    for row in rows_of(found, series):
        members = [point for point in found if fits(point, row)]
        settings = [one for one in paired(members, leak, utility) if one.tested]
        words = [numbers.label(value) for value in said(row, unset).values() if value is not None]
        if settings:
            families[" ".join(words)] = settings
    return families


def _family(axes: Axes, settings: Sequence[Setting], colour: str, marker: str) -> None:
    best = undominated(settings)
    axes.plot(*zip(*(one.place for one in best), strict=True), color=colour, lw=1.8, zorder=2)
    for one in settings:
        x, y = one.place
        if not math.isnan(one.leak.low):
            axes.plot([one.leak.low, one.leak.high], [y, y], color=colour, lw=0.8, alpha=0.5, zorder=2)
        if not math.isnan(one.utility.low):
            axes.plot([x, x], [one.utility.low, one.utility.high], color=colour, lw=0.8, alpha=0.5, zorder=2)
        face = colour if one in best else "white"
        axes.plot(x, y, marker, color=colour, mfc=face, ms=6, mec="white" if one in best else colour, mew=0.8, zorder=3)
