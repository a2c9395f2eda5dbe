"""Where the time of a decode step goes: stages as stacked bars, with the link's modelled seconds set apart."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from smd_research.core.errors import RecordError
from smd_research.records.options import Label
from smd_research.reports.figures.style import CATEGORIES, INK, PAPER, QUIET, house_style, new_figure, save
from smd_research.reports.points import Point, Source, fits, points
from smd_research.reports.render import numbers


@dataclass(frozen=True)
class StackedBar:
    """One bar: a mode, and the modelled link that is added to it, if any."""

    title: str
    mode: str
    link: str | None = None


def breakdown(
    source: Source,
    path: str | os.PathLike[str],
    stages: Mapping[str, str],
    bars: Sequence[StackedBar],
    panels: str = "model",
    title: str = "",
) -> Path:
    """Write :func:`breakdown_figure` as PNG.

    Returns:
        The path.
    """
    return save(breakdown_figure(points(source), stages, bars, panels, title), Path(path))


def breakdown_figure(
    found: Sequence[Point],
    stages: Mapping[str, str],
    bars: Sequence[StackedBar],
    panels: str = "model",
    title: str = "",
) -> Figure:
    """Stacked bars of stage times, normalised to no protection (the first bar) of the same panel.

    Args:
        found: all points; the stages are quantities in milliseconds.
        stages: the name of each stage by its quantity, from the bottom.
        bars: from the left; the first is the yardstick. A link's part is ``link_<name>_ms``: modelled, and hatched.
        panels: label of which each value has a panel.
        title: heading of the figure.

    Raises:
        RecordError: when there is nothing to draw.
    """
    values = list(dict.fromkeys(point.labels.get(panels) for point in found if point.quantity in stages))
    if not values:
        raise RecordError("no stage of a decode step has been measured")
    with house_style():
        figure = new_figure(1.6 + (0.8 + 0.75 * len(bars)) * len(values), 4.8)
        grid = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
        for axes, value in zip(grid, values, strict=True):
            _panel(axes, [point for point in found if fits(point, {panels: value})], stages, bars)
            axes.set_title(numbers.label(value), size=10, weight="normal", color=QUIET)
        grid[0].set_ylabel("decoding a token of each user, no protection = 1")
        handles = [Patch(color=CATEGORIES[i % len(CATEGORIES)], label=name) for i, name in enumerate(stages.values())]
        if any(bar.link for bar in bars):
            handles.append(Patch(facecolor=PAPER, edgecolor=INK, hatch="////", label="link, modelled"))
        grid[-1].legend(handles=handles[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
        figure.suptitle(title, x=0.008, ha="left", weight="bold", size=12)
        return figure


def _panel(axes: Axes, members: Sequence[Point], stages: Mapping[str, str], bars: Sequence[StackedBar]) -> None:
    """The bars of a panel; one that is not measured yet says so."""
    unit = sum(_parts(members, bars[0], stages)) or 1.0
    for place, bar in enumerate(bars):
        parts = _parts(members, bar, stages)
        height = 0.0
        for index, part in enumerate(parts):
            colour = CATEGORIES[index % len(CATEGORIES)]
            axes.bar(place, part / unit, bottom=height, width=0.66, color=colour, edgecolor=PAPER, lw=0.5)
            height += part / unit
        link = _one(members, bar.mode, f"link_{bar.link}_ms") if bar.link else None
        if link:
            axes.bar(place, link / unit, bottom=height, width=0.66, color=PAPER, edgecolor=INK, hatch="////", lw=0.6)
            height += link / unit
        text = f"{height:.2f}" if height else numbers.PENDING
        axes.text(place, height, f"{text}\n", ha="center", va="center", size=8.5, color=INK if height else QUIET)
    axes.set_xticks(range(len(bars)), [bar.title.replace(", ", ",\n") for bar in bars], size=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.08)
    axes.set_ylim(bottom=0)


def _parts(members: Sequence[Point], bar: StackedBar, stages: Mapping[str, str]) -> list[float]:
    return [_one(members, bar.mode, quantity) or 0.0 for quantity in stages]


def _one(members: Sequence[Point], mode: Label, quantity: str) -> float | None:
    values = [point.value for point in members if point.quantity == quantity and point.labels.get("mode") == mode]
    return values[0] if values else None
