"""Tables as pictures."""

from functools import cache
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from smd_research.reports.figures.style import INK, LEAK, PAPER, QUIET, RULE, house_style, save
from smd_research.reports.tables.table import Column, Table, TableEntry, broken

_FONT, _SMALL = 10.0, 8.0
_ROW, _LINE, _TITLE, _NOTE, _MARGIN, _GAP = 0.40, 0.18, 0.36, 0.20, 0.25, 0.34
"""Inches: heights of a row, a line of the heading, the title and a footnote; margin; space between columns."""

_PAD = _GAP / 2 - 0.03
"""How far shading and rules reach beyond the text."""

_NARROW = 16
"""Characters after which a heading is broken."""


def save_png(table: Table, path: Path) -> Path:
    """Draw a table as wide as its content; leaks shaded, intervals small under their value.

    Returns:
        The path.
    """
    with house_style():
        return save(draw(table), path)


def draw(table: Table) -> Figure:
    """The figure of a table."""
    widths = [_width(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    notes = [line for note in table.notes for line in _wrapped(note, sum(widths) + _GAP * (len(widths) - 1))]
    title_width = _extent(table.title, 12, bold=True)
    width = max(sum(widths) + _GAP * (len(widths) - 1), title_width) + 2 * _MARGIN
    heads = [_heading(column) for column in table.columns]
    head = _LINE * max(len(lines) for lines in heads) + 0.14
    height = _TITLE + head + _ROW * len(table.rows) + _NOTE * len(notes) + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)  # downwards, in inches, as one reads
    axes.text(_MARGIN, _MARGIN, table.title, size=12, weight="bold", va="top")

    lefts = [_MARGIN + sum(widths[:i]) + _GAP * i for i in range(len(widths))]
    right = lefts[-1] + widths[-1]
    top = _MARGIN + _TITLE
    for column, lines, left, span in zip(table.columns, heads, lefts, widths, strict=True):
        x, side = (left, "left") if column.align == "left" else (left + span, "right")
        for index, (text, size, bold) in enumerate(reversed(lines)):
            y, colour = top + head - 0.14 - _LINE * index, INK if bold else QUIET
            axes.text(x, y, text, size=size, weight="bold" if bold else "normal", color=colour, ha=side, va="center")
    _rule(axes, _MARGIN, right, top + head, INK, 1.0)
    for index, row in enumerate(table.rows):
        y = top + head + _ROW * index
        for cell, column, left, span in zip(row, table.columns, lefts, widths, strict=True):
            _draw_entry(axes, cell, column, left, span, y)
        last = index == len(table.rows) - 1
        _rule(axes, _MARGIN, right, y + _ROW, INK if last else RULE, 1.0 if last else 0.6)
    for index, note in enumerate(notes):
        y = top + head + _ROW * len(table.rows) + _NOTE * index + 0.1
        axes.text(_MARGIN, y, note, size=_SMALL, color=QUIET, va="top")
    return figure


def _draw_entry(axes: Axes, cell: TableEntry, column: Column, left: float, span: float, y: float) -> None:
    x, side = (left, "left") if column.align == "left" else (left + span, "right")
    ink, quiet = INK, QUIET
    if cell.shade is not None:
        fill = _blend(cell.shade)
        axes.add_patch(Rectangle((left - _PAD, y + 0.02), span + 2 * _PAD, _ROW - 0.04, color=fill, lw=0))
        ink, quiet = (PAPER, PAPER) if cell.shade > 0.7 else (INK, INK)
    middle = y + _ROW / 2
    shift = 0.075 if cell.interval else 0.0
    axes.text(x, middle - shift, cell.text, size=_FONT, color=ink, ha=side, va="center")
    if cell.interval:
        axes.text(x, middle + 0.1, cell.interval, size=_SMALL - 1, color=quiet, ha=side, va="center")


def _rule(axes: Axes, left: float, right: float, y: float, colour: str, width: float) -> None:
    axes.plot([left - _PAD, right + _PAD], [y, y], color=colour, lw=width, solid_capstyle="butt")


def _blend(shade: float) -> tuple[float, float, float]:
    """From paper to the colour of a leak."""
    red, green, blue = (1 + shade * 0.85 * (part - 1) for part in to_rgb(LEAK))
    return red, green, blue


def _heading(column: Column) -> list[tuple[str, float, bool]]:
    """Lines of a heading: text, size, bold."""
    lines = [(line, _FONT, True) for line in broken(column.title, _NARROW).split("\n")]
    return [*lines, (column.unit, _SMALL, False)] if column.unit else lines


def _width(column: Column, cells: list[TableEntry]) -> float:
    texts = _heading(column)
    texts += [(cell.text, _FONT, False) for cell in cells] + [(cell.interval, _SMALL - 1, False) for cell in cells]
    return max(_extent(text, size, bold) for text, size, bold in texts)


def _extent(text: str, size: float, bold: bool = False) -> float:
    """Width of a text in inches, as it will be drawn."""
    if not text:
        return 0.0
    page = _page()
    drawn: Text = page.figure.text(0, 0, text, size=size, weight="bold" if bold else "normal")
    width = float(drawn.get_window_extent(page.get_renderer()).width) / 100
    drawn.remove()
    return width


@cache
def _page() -> FigureCanvasAgg:
    """A page that texts are held against; nothing stays on it."""
    return FigureCanvasAgg(Figure(dpi=100))


def _wrapped(text: str, width: float) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _extent(longer, _SMALL) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]
