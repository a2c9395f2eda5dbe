"""A share over two parameters: how many tokens are recovered, by layer and by noise, for each attack."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.records.options import Label
from smd_research.records.record import Status
from smd_research.reports.epsilons import notion_of_label, the_one
from smd_research.reports.figures.style import INK, LEAK, PAPER, QUIET, RULE, house_style, new_figure, save
from smd_research.reports.points import Point, Source, Where, fits, points, same
from smd_research.reports.render import numbers

_CELL_WIDTH, _CELL_HEIGHT = 0.7, 0.36
_DARK = 0.6


@dataclass(frozen=True)
class Side:
    """A side of the map: the label that runs along it, its heading, and what stands for cells that do not set it."""

    label: str
    title: str
    unset: str = "none"


def heat_map(
    source: Source,
    path: str | os.PathLike[str],
    x: Side,
    y: Side,
    quantity: str = "token_accuracy",
    rows: str | None = None,
    columns: str | None = None,
    where: Where | None = None,
    title: str = "",
) -> Path:
    """Write :func:`heat_map_figure` as PNG.

    Args:
        source: a frame of records, or the cases of benches.
        path: of the picture.
        x: horizontal side.
        y: vertical side.
        quantity: a share.
        rows: label of which each value has a row of maps.
        columns: the same for columns.
        where: labels of the points that are shown.
        title: heading of the figure.

    Returns:
        The path.
    """
    return save(heat_map_figure(points(source), x, y, quantity, rows, columns, where, title), Path(path))


def heat_map_figure(
    found: Sequence[Point],
    x: Side,
    y: Side,
    quantity: str = "token_accuracy",
    rows: str | None = None,
    columns: str | None = None,
    where: Where | None = None,
    title: str = "",
) -> Figure:
    """A map for each value of up to two labels, a share in each field; a dash where an attack does not apply.

    Values along a side ascend, and cells that do not set the label (no noise at all) stand at its end. A row of maps
    has the fields of its own cells.

    Args:
        found: all points.
        x: horizontal side.
        y: vertical side, downwards.
        quantity: a share.
        rows: label of which each value has a row of maps.
        columns: the same for columns.
        where: labels of the points that are shown.
        title: heading of the figure.

    Raises:
        RecordError: when there is nothing to draw, or several points belong in one field.
    """
    shown = [p for p in found if fits(p, where or {}) and (p.quantity == quantity or p.status is not Status.OK)]
    if not any(p.quantity == quantity for p in shown):
        raise RecordError(f"no {quantity} over {x.label} and {y.label} has been measured")
    downs, acrosses = (_values(shown, name) if name else [None] for name in (rows, columns))
    members = [[p for p in shown if rows is None or same(p.labels.get(rows), down)] for down in downs]
    sides = [(_values(part, x.label), _values(part, y.label)) for part in members]
    width = _CELL_WIDTH * max(len(xs) for xs, _ in sides) + 0.7
    heights = [_CELL_HEIGHT * len(ys) + 1.1 for _, ys in sides]
    kind = the_one(notion_of_label(p.labels, x.label) for p in shown)
    with house_style():
        figure = new_figure(width * len(acrosses) + 0.4, sum(heights) + 0.5)
        grid = figure.subplots(len(downs), len(acrosses), squeeze=False, height_ratios=heights)
        for axes_row, part, (xs, ys), down in zip(grid, members, sides, downs, strict=True):
            for axes, across in zip(axes_row, acrosses, strict=True):
                own = [p for p in part if columns is None or same(p.labels.get(columns), across)]
                if not own:
                    axes.set_axis_off()
                    continue
                _draw(axes, own, x, y, xs, ys)
                heading = ", ".join(numbers.label(one) for one in (down, across) if one is not None)
                axes.set_title(heading, size=10, weight="normal", color=QUIET)
                axes.set_ylabel(y.title)
                axes.set_xlabel(f"{x.title}, {kind.unit}" if kind else x.title)
        figure.suptitle(title or "What is recovered", x=0.01, ha="left", weight="bold", size=12)
    return figure


def _values(found: Sequence[Point], name: str) -> list[Label]:
    """The values of a label: numbers ascending, then words, then none."""
    values: list[Label] = []
    for point in found:
        value = point.labels.get(name)
        if not any(same(value, one) for one in values):
            values.append(value)
    numeric = sorted(one for one in values if isinstance(one, int | float))
    return [*numeric, *sorted(one for one in values if isinstance(one, str)), *[None] * (None in values)]


def _draw(axes: Axes, own: Sequence[Point], x: Side, y: Side, xs: Sequence[Label], ys: Sequence[Label]) -> None:
    paint = LinearSegmentedColormap.from_list("leak", [PAPER, LEAK])
    shares = [[_share(own, {x.label: across, y.label: down}) for across in xs] for down in ys]
    painted = [[one if isinstance(one, float) else 0.0 for one in row] for row in shares]
    axes.imshow(painted, cmap=paint, vmin=0.0, vmax=1.0, aspect="auto")
    for down, row in enumerate(shares):
        for across, one in enumerate(row):
            text, dark = (numbers.share(one), one > _DARK) if isinstance(one, float) else (one, False)
            axes.text(across, down, text, ha="center", va="center", size=8, color=PAPER if dark else INK)
    axes.set_xticks(range(len(xs)), [_written(one, x) for one in xs])
    axes.set_yticks(range(len(ys)), [_written(one, y) for one in ys])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xticks([place - 0.5 for place in range(1, len(xs))], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(ys))], minor=True)
    axes.grid(which="minor", color=RULE, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(RULE)


def _share(own: Sequence[Point], place: Where) -> float | str:
    """The one share that belongs in a field; a dash where the attack does not apply, dots where nothing is known."""
    there = [p for p in own if fits(p, place)]
    measured = [p.value for p in there if p.status is Status.OK]
    if len(measured) > 1:
        raise RecordError(f"{len(measured)} figures belong in the field {dict(place)}: name rows and columns, or where")
    if measured:
        return measured[0]
    waiting = any(p.status is Status.MISSING for p in there)
    return numbers.PENDING if waiting or not there else numbers.MISSING


def _written(value: Label, side: Side) -> str:
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value == int(value) else f"{value:g}"
    return side.unset if value is None else numbers.label(value)
