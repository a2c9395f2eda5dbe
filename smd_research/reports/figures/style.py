"""One look for every figure: quiet axes, direct labels, colours that colour-blind readers can tell apart."""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from smd_research.core.whole_file import write_whole

INK, QUIET, RULE, PAPER = "#1f2430", "#6b7280", "#d9dce1", "#ffffff"

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#8C8C8C")
"""Okabe and Ito's palette (2008), its yellow and black replaced by tones that hold on white."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")

SEQUENTIAL = "cividis"
"""Perceptually even, and the same to readers with and without colour vision deficiency (Nunez et al. 2018)."""

LEAK = "#b2182b"
"""The colour of a leak; shaded from white."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style; the reader's own matplotlib settings are untouched."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure without a window, in inches; needs no display and no pyplot state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, dpi: int = 200) -> Path:
    """Write a figure as PNG, without a date, so that equal records give equal bytes.

    Raises:
        RecordError: it cannot be written; what stood in its place is as it was.
    """
    wrap_headings(figure)
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png", metadata={"Software": None})
    return write_whole(path, content.getvalue())


def wrap_headings(figure: Figure) -> None:
    """Break those headings, the bold texts, that would be cut at the right edge."""
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        written, box = text.get_text(), text.get_window_extent()
        if written and text.get_fontweight() == "bold" and box.x1 > figure.bbox.x1:
            letters = len(written) * (figure.bbox.x1 - box.x0) / box.width
            text.set_text("\n".join(textwrap.wrap(written, int(0.95 * letters))))


def percent_axis(axes: Axes, which: str = "y") -> None:
    """Show shares in percent, 0 to 100, with a little air so that points on the edge are whole."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_ylim if which == "y" else axes.set_xlim)(-0.04, 1.04)
    axis.set_major_locator(matplotlib.ticker.MultipleLocator(0.2))
    axis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, symbol=" %"))
