"""Labels beside their points, moved until none overlaps another."""

import math
from collections.abc import Sequence

import numpy as np
import scipy
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

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
    if not points:
        return
    scale = axes.figure.dpi / 72
    spots = axes.transData.transform(points)
    taken = [*np.hstack([spots - _POINT * scale, spots + _POINT * scale])]
    corners = [axes.transData.transform([(x0, y0), (x1, y1)]).ravel() for x0, y0, x1, y1 in avoid]
    things = np.reshape(corners, (-1, 4)) + scale * np.array([-1, -1, 1, 1])
    frame = np.array(axes.get_window_extent().extents)
    for index in sorted(range(len(points)), key=lambda i: -spots[i][1]):
        boxes = _places(spots[index], *_size(axes, texts[index]), scale)
        covered = _covered(boxes, np.array(taken[:index] + taken[index + 1 :]), frame)
        ambiguous = _are_ambiguous(boxes, spots, index)
        costs = list(zip(covered, ambiguous, _overlaps(boxes, things).sum(axis=1), strict=True))
        best = costs.index(min(costs))
        taken.append(boxes[best])
        box, spot = Bbox.from_extents(*boxes[best]), (float(spots[index][0]), float(spots[index][1]))
        _write(axes, points[index], spot, texts[index], box, scale, bool(ambiguous[best]))


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
    moved = scipy.optimize.isotonic_regression([height - step for height, step in zip(heights, steps, strict=True)]).x
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


def _places(spot: np.ndarray, width: float, height: float, scale: float) -> np.ndarray:
    """Where a label may stand, the nearest places first: a row ``(x0, y0, x1, y1)`` each."""
    size, ways = np.array([width, height]), np.array(_DIRECTIONS)
    steps = np.array(_DISTANCES)[:, None, None] * scale * ways
    low = (spot + steps - size * (0.5 - 0.5 * np.sign(ways))).reshape(-1, 2)
    places: np.ndarray = np.hstack([low, low + size])
    return places


def _covered(boxes: np.ndarray, taken: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Of each box the area over points and texts, and its area outside the frame, which is as bad."""
    covered = _overlaps(boxes, taken.reshape(-1, 4)).sum(axis=1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    both: np.ndarray = np.round(covered + area - _overlaps(boxes, frame[None])[:, 0], 6)
    return both


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that each box, a row, shares with each of others, a column."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: np.ndarray = np.maximum(high - low, 0.0).prod(axis=2)
    return shared


def _are_ambiguous(boxes: np.ndarray, spots: np.ndarray, own: int) -> np.ndarray:
    """Whether each box stands nearer to another point than to its own."""
    near = np.clip(spots[None], boxes[:, None, :2], boxes[:, None, 2:])
    distances = np.hypot(*np.moveaxis(near - spots[None], 2, 0))
    nearer: np.ndarray = distances[:, own] > distances.min(axis=1) + 1e-9
    return nearer


def _distance(box: Bbox, spot: tuple[float, float]) -> float:
    near = _nearest(box, spot)
    return math.hypot(near[0] - spot[0], near[1] - spot[1])


def _nearest(box: Bbox, spot: tuple[float, float]) -> tuple[float, float]:
    return min(max(spot[0], box.x0), box.x1), min(max(spot[1], box.y0), box.y1)


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
