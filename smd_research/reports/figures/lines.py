"""Curves over a parameter: latency over users, seconds over model size, recovered tokens over prompt length."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from smd_research.core.errors import RecordError
from smd_research.records.options import Label
from smd_research.reports.figures.placing import place_ends
from smd_research.reports.figures.style import CATEGORIES, MARKERS, QUIET, house_style, new_figure, percent_axis, save
from smd_research.reports.points import Point, Series, Source, Where, fits, points
from smd_research.reports.render import numbers

BANDS, STEP = 2, 5.0
"""Curves of a panel up to which intervals are bands; and the typographic points between curves that stand beside."""

TICK_ROOM = 0.09
"""Share of an axis below which two ticks would run into each other."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        title: its label.
        quantity: what stands on the vertical axis.
        where: labels of its points.
        quiet: whether it is a reference, drawn dashed and grey.
    """

    title: str
    quantity: str
    where: Where = field(default_factory=dict)
    quiet: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its heading, how its values are written, and whether it is logarithmic."""

    title: str
    show: Literal["number", "share"] = "number"
    log: bool = False


def lines(
    source: Source,
    path: str | os.PathLike[str],
    over: str,
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    by: str | None = None,
    rows: str | None = None,
    columns: str | None = None,
    title: str = "",
    reference: float | None = None,
) -> Path:
    """Write :func:`lines_figure` as PNG.

    Args:
        source: a frame of records, or the cases of benches.
        path: of the picture.
        over: label on the horizontal axis.
        curves: what is drawn.
        x: horizontal axis.
        y: vertical axis.
        by: label of which each value has a curve of its own, its value written for ``{}`` in the curve's title.
        rows: label of which each value has a row of panels.
        columns: the same for columns.
        title: heading of the figure.
        reference: height of a dashed line.

    Returns:
        The path.
    """
    found = points(source)
    drawn = [each for curve in curves for each in _split(curve, found, by)] if by else curves
    made = lines_figure(found, over, drawn, x, y, rows, columns, title, reference)
    return save(made, Path(path))


def lines_figure(
    found: Sequence[Point],
    over: str,
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    rows: str | None = None,
    columns: str | None = None,
    title: str = "",
    reference: float | None = None,
) -> Figure:
    """A panel for each value of up to two labels, a curve for each series with its 95 % intervals, named at its end.

    Intervals are bands; of three curves or more, whose bands would mix to grey, they are whiskers, and the curves stand
    a little beside each other, so that none hides another.

    Args:
        found: all points.
        over: label on the horizontal axis.
        curves: what is drawn.
        x: horizontal axis.
        y: vertical axis; shares have one scale in all panels.
        rows: label of which each value has a row of panels.
        columns: the same for columns.
        title: heading of the figure.
        reference: height of a dashed line, e.g. 1 for no protection.

    Raises:
        RecordError: when there is nothing to draw.
    """
    drawn = [p for curve in curves for p in Series(curve.quantity, curve.where).points(found)]
    drawn = [p for p in drawn if isinstance(p.labels.get(over), int | float)]
    if not drawn:
        raise RecordError(f"no figure over {over} has been measured")
    room = _room(max(len(curve.title) for curve in curves))
    downs, acrosses = (_values(drawn, name) for name in (rows, columns))
    with house_style():
        figure = new_figure(1.0 + 4.9 * len(acrosses), 0.6 + 3.3 * len(downs))
        grid = figure.subplots(len(downs), len(acrosses), squeeze=False, sharey=y.show == "share")
        ends: list[tuple[Axes, dict[str, tuple[float, float]]]] = []
        for axes_row, down in zip(grid, downs, strict=True):
            for axes, across in zip(axes_row, acrosses, strict=True):
                chosen = {name: value for name, value in ((rows, down), (columns, across)) if name}
                members = [point for point in drawn if fits(point, chosen)]
                ends.append((axes, _panel(axes, members, over, curves)))
                if chosen:
                    heading = ", ".join(numbers.label(value) for value in chosen.values())
                    axes.set_title(heading, size=10, weight="normal", color=QUIET)
                _scales(axes, sorted({_place(point, over) for point in drawn}), x, y, room)
                if reference is not None:
                    axes.axhline(reference, color=QUIET, lw=1.0, ls="--", zorder=1)
            axes_row[0].set_ylabel(y.title)
        figure.suptitle(title, x=0.008, ha="left", weight="bold", size=12)
        figure.draw_without_rendering()
        for axes, names in ends:
            place_ends(
                axes, list(names.values()), list(names), gap=9.0 + STEP * (sum(not c.quiet for c in curves) > BANDS)
            )
        return figure


def _split(curve: Curve, found: Sequence[Point], by: str) -> list[Curve]:
    """A curve for each value of a label, the smallest first."""
    values = _values(Series(curve.quantity, curve.where).points(found), by)
    values.sort(key=lambda value: (isinstance(value, str), value))
    return [
        replace(curve, title=curve.title.format(numbers.label(value)), where={**curve.where, by: value})
        for value in values
    ]


def _values(drawn: Sequence[Point], name: str | None) -> list[Label]:
    if name is None:
        return [None]
    return list(dict.fromkeys(point.labels.get(name) for point in drawn))


def _panel(axes: Axes, members: Sequence[Point], over: str, curves: Sequence[Curve]) -> dict[str, tuple[float, float]]:
    """Draw the curves of a panel; returns where each ends, for its label."""
    ends = {}
    colours = iter(zip(CATEGORIES * 3, MARKERS * 3, strict=True))
    drawn = {curve.title: Series(curve.quantity, curve.where).points(members) for curve in curves}
    loud = [curve.title for curve in curves if drawn[curve.title] and not curve.quiet]
    for curve in curves:
        colour, marker = (QUIET, "") if curve.quiet else next(colours)
        own = sorted(drawn[curve.title], key=lambda point: _place(point, over))
        if not own:
            continue
        places, values = [_place(point, over) for point in own], [point.value for point in own]
        if curve.quiet:
            axes.plot(places, values, "--", color=colour, lw=1.4)
        else:
            beside = loud.index(curve.title) - (len(loud) - 1) / 2 if len(loud) > BANDS else 0.0
            _curve(axes, places, own, colour, marker, beside if len(loud) > BANDS else None)
        ends[curve.title] = (places[-1], values[-1])
    return ends


def _curve(
    axes: Axes, places: Sequence[float], own: Sequence[Point], colour: str, marker: str, beside: float | None
) -> None:
    """A curve with its intervals: a band, or whiskers where it stands ``beside`` others, by so many steps."""
    values = [point.value for point in own]
    lows = [point.value if math.isnan(point.low) else point.low for point in own]
    highs = [point.value if math.isnan(point.high) else point.high for point in own]
    moved = axes.transData
    if beside is None:
        axes.fill_between(places, lows, highs, color=colour, alpha=0.13, lw=0)
    else:
        moved = moved + ScaledTranslation(beside * STEP / 72, 0, axes.figure.dpi_scale_trans)
        axes.vlines(places, lows, highs, color=colour, lw=1.0, alpha=0.6, transform=moved)
        axes.update_datalim([*zip(places, lows, strict=True), *zip(places, highs, strict=True)])
    axes.plot(
        places, values, "-", color=colour, marker=marker, lw=1.8, ms=6, mec="white", mew=0.8, transform=moved
    )  # fmt: skip
    axes.update_datalim(list(zip(places, values, strict=True)))


def _place(point: Point, over: str) -> float:
    return float(point.labels[over])  # type: ignore[arg-type]  # only numbers are drawn


def _room(letters: int) -> float:
    """How far the axis goes on after the last place, as a share of the range, so that labels fit."""
    share = 0.06 + 0.0145 * letters
    return share / (1 - share)


def _scales(axes: Axes, places: Sequence[float], x: Axis, y: Axis, room: float) -> None:
    """Ticks where something was measured; room to the right for labels."""
    first, last = places[0], places[-1]
    if x.log and first > 0:
        axes.set_xscale("log")
        spread = max(last / first, 1.5)
        axes.set_xlim(first / spread**0.06, last * spread**room)
    else:
        spread = max(last - first, 0.1 * abs(last), 1e-9)
        axes.set_xlim(first - 0.06 * spread, last + room * spread)
    ticks = _apart(places, axes.get_xscale() == "log")
    axes.set_xticks(ticks, [_short(place) for place in ticks])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(x.title)
    if y.show == "share":
        percent_axis(axes)
    elif y.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(bottom=0)


def _apart(places: Sequence[float], log: bool) -> list[float]:
    """Those of ascending places whose ticks stand far enough from the one before to be read."""
    distance = math.log if log else float
    least = TICK_ROOM * (distance(places[-1]) - distance(places[0]))
    kept = [places[0]]
    for place in places[1:]:
        if distance(place) - distance(kept[-1]) >= least:
            kept.append(place)
    return kept


def _short(value: float) -> str:
    """A tick: large counts in thousands, millions and billions."""
    for size, sign in ((1e9, " B"), (1e6, " M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == 'k' else size):.3g}{sign}"
    return f"{value:g}"
