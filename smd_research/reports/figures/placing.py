"""Labels beside their points, moved until none overlaps another."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from smd_research.reports.figures.style import INK, PAPER, QUIET

_DISTANCES = (9.0, 16.0, 26.0, 40.0, 58.0, 80.0)
_DIRECTIONS = ((1.0, 0.0), (0.8, 0.7), (0.8, -0.7), (0.0, 1.0), (0.0, -1.0), (-0.8, 0.7), (-0.8, -0.7), (-1.0, 0.0))
_POINT = 7.0
"""Half the size of a point, in typographic points."""


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    avoid: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """Write each text near its point, without covering a point or another text, joined by a hair where it moved far.

    Points are taken from the top. Each text goes to the nearest place that covers no point and no text; among such it
    rather stands by its own point than by another, and rather off the other things on the page than on them.

    Args:
        axes: laid out already (its figure drawn once), so that places on the page are known.
        points: in data coordinates.
        texts: one a point; lines after the first are written smaller and quieter.
        avoid: other things on the page, as ``(x0, y0, x1, y1)`` in data coordinates.
    """
    scale = axes.figure.dpi / 72
    spots = [(float(x), float(y)) for x, y in (axes.transData.transform(point) for point in points)]
    taken = [
        Bbox.from_bounds(x - _POINT * scale, y - _POINT * scale, 2 * _POINT * scale, 2 * _POINT * scale)
        for x, y in spots
    ]
    things = []
    for x0, y0, x1, y1 in avoid:
        (left, bottom), (right, top) = axes.transData.transform([(x0, y0), (x1, y1)])
        things.append(Bbox.from_extents(left - scale, bottom - scale, right + scale, top + scale))
    frame = axes.get_window_extent()
    for index in sorted(range(len(points)), key=lambda i: -spots[i][1]):
        width, height = _size(axes, texts[index])
        places = _places(spots[index], width, height, scale)
        costs = [
            (
                _covered(box, taken, index, frame),
                _is_ambiguous(box, spots, index),
                sum(_overlap(box, t) for t in things),
            )
            for _, box in places
        ]
        _, box = places[costs.index(min(costs))]
        taken.append(box)
        _write(axes, points[index], spots[index], texts[index], box, scale, _is_ambiguous(box, spots, index))


def place_ends(axes: Axes, ends: Sequence[tuple[float, float]], texts: Sequence[str], gap: float = 9.0) -> None:
    """Write the name of each curve to the right of its end, in the order in which the curves end, none over another.

    Names move as little as that takes, by least squares; they stay inside the frame where it has room for all.

    Args:
        axes: laid out already.
        ends: of the curves, in data coordinates.
        texts: one a curve; of equal ends the first stands on top.
        gap: between an end and its name, in typographic points.
    """
    scale = axes.figure.dpi / 72
    spots = [(float(x), float(y)) for x, y in (axes.transData.transform(end) for end in ends)]
    for x in sorted({round(spot[0]) for spot in spots}):
        own = [i for i, spot in enumerate(spots) if round(spot[0]) == x]
        own.sort(key=lambda i: (spots[i][1], -i))
        sizes = [_size(axes, texts[i]) for i in own]
        middles = stacked([spots[i][1] for i in own], max(height for _, height in sizes), axes.get_window_extent())
        for i, (width, height), middle in zip(own, sizes, middles, strict=True):
            box = Bbox.from_bounds(spots[i][0] + gap * scale, middle - height / 2, width, height)
            _write(axes, ends[i], spots[i], texts[i], box, scale, hair=False)


def stacked(heights: Sequence[float], apart: float, frame: Bbox) -> list[float]:
    """Ascending heights moved as little as possible until each is ``apart`` above the one before."""
    steps = [apart * i for i in range(len(heights))]
    low, high = frame.y0 + apart / 2, max(frame.y1 - apart / 2 - steps[-1], frame.y0 + apart / 2)
    moved = isotonic_regression([height - step for height, step in zip(heights, steps, strict=True)]).x
    return [min(max(float(one), low), high) + step for one, step in zip(moved, steps, strict=True)]


def around(
    axes: Axes, place: tuple[float, float], wide: float = 4.0, high: float = 4.0
) -> tuple[float, float, float, float]:
    """What a mark covers, in data coordinates; half its width and height are given in typographic points."""
    x, y = axes.transData.transform(place)
    scale = axes.figure.dpi / 72
    corners = [(x - wide * scale, y - high * scale), (x + wide * scale, y + high * scale)]
    (left, bottom), (right, top) = axes.transData.inverted().transform(corners)
    return float(left), float(bottom), float(right), float(top)


def _places(spot: tuple[float, float], width: float, height: float, scale: float) -> list[tuple[float, Bbox]]:
    found = []
    for distance in _DISTANCES:
        for dx, dy in _DIRECTIONS:
            x = spot[0] + dx * distance * scale - width * (0.5 - 0.5 * ((dx > 0) - (dx < 0)))
            y = spot[1] + dy * distance * scale - height * (0.5 - 0.5 * ((dy > 0) - (dy < 0)))
            found.append((distance, Bbox.from_bounds(x, y, width, height)))
    return found


def _covered(box: Bbox, taken: Sequence[Bbox], own: int, frame: Bbox) -> float:
    """Area over points and texts, and area outside the frame, which is as bad."""
    covered = sum(_overlap(box, other) for index, other in enumerate(taken) if index != own)
    return round(covered + box.width * box.height - _overlap(box, frame), 6)


def _is_ambiguous(box: Bbox, spots: Sequence[tuple[float, float]], own: int) -> bool:
    """Whether a label stands nearer to another point than to its own."""
    distances = [_distance(box, spot) for spot in spots]
    return distances[own] > min(distances) + 1e-9


def _distance(box: Bbox, spot: tuple[float, float]) -> float:
    near = _nearest(box, spot)
    return math.hypot(near[0] - spot[0], near[1] - spot[1])


def _nearest(box: Bbox, spot: tuple[float, float]) -> tuple[float, float]:
    return min(max(spot[0], box.x0), box.x1), min(max(spot[1], box.y0), box.y1)


def _overlap(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return float(shared.width * shared.height) if shared is not None else 0.0


def _lines(text: str) -> list[tuple[str, float, str]]:
    return [(line, 9.5 if i == 0 else 7.5, INK if i == 0 else QUIET) for i, line in enumerate(text.split("\n"))]


def _size(axes: Axes, text: str) -> tuple[float, float]:
    sizes = []
    for line, size, _ in _lines(text):
        drawn = axes.text(0, 0, line, size=size)
        box = drawn.get_window_extent()
        drawn.remove()
        sizes.append((box.width, box.height))
    return max(width for width, _ in sizes), 1.15 * sum(height for _, height in sizes)


def _write(
    axes: Axes, point: tuple[float, float], spot: tuple[float, float], text: str, box: Bbox, scale: float, hair: bool
) -> None:
    near = _nearest(box, spot)
    if hair or _distance(box, spot) > 16 * scale:
        end = axes.transData.inverted().transform(near)
        axes.plot([point[0], end[0]], [point[1], end[1]], color=QUIET, lw=0.6, zorder=1, scalex=False, scaley=False)
    lines = _lines(text)
    height = (box.y1 - box.y0) / sum(size for _, size, _ in lines)
    y, side = box.y1, "right" if box.x1 <= spot[0] else "left"
    for line, size, colour in lines:
        place = axes.transData.inverted().transform((box.x1 if side == "right" else box.x0, y - height * size / 2))
        halo = [withStroke(linewidth=2.2, foreground=PAPER)]
        axes.text(place[0], place[1], line, size=size, color=colour, ha=side, va="center", zorder=6, path_effects=halo)
        y -= height * size
