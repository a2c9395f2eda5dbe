"""The main numbers of one record, with their intervals: the picture that goes with it to whoever tracks runs."""

import math

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS, Card, Estimate
from smd_research.records.record import Record
from smd_research.reports.figures.style import CATEGORIES, LEAK, QUIET, house_style, new_figure, percent_axis
from smd_research.reports.render import numbers

SHARES = (
    *("token_accuracy", "control_token_accuracy", "span_exact", "control_span_exact"),
    *("token_recovery", "control_token_recovery", "id_recovery", "id_chance"),
    *("choice_top1", "control_choice_top1", "stream_found", "stream_chance"),
    *("attribute_accuracy", "attribute_chance", "hidden_overlap", "restored_top1", "greedy_equal", "accuracy"),
)
"""What stands on the axis of shares, a leak before its chance."""

AMOUNTS = ("kl", "perplexity", "restored_loss", "tpot_ms", "tune_s")
"""What has an axis of its own."""

_ROW = 0.3
"""Height of a row, inches."""


def headline_figure(record: Record) -> Figure:
    """Shares on one axis, and under it each amount on its own, from 0.

    Args:
        record: of a cell that ended well.

    Raises:
        RecordError: when it holds none of these numbers.
    """
    shares, amounts = (_held(record, names) for names in (SHARES, AMOUNTS))
    if not shares and not amounts:
        raise RecordError(f"{record.path or record.cell.readable} is {record.status}: it has no numbers to draw")
    heights = ([_ROW * len(shares) + 0.5] if shares else []) + [_ROW + 0.45] * len(amounts)
    with house_style():
        figure = new_figure(6.4, sum(heights) + 0.4)
        panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
        if shares:
            _draw(panels[0], shares)
            percent_axis(panels.pop(0), "x")
        for axes, (card, estimate) in zip(panels, amounts, strict=True):
            _draw(axes, [(card, estimate)])
            _from_zero(axes, estimate)
        figure.suptitle(record.cell.readable, x=0.01, ha="left", size=9, color=QUIET)
    return figure


def _held(record: Record, names: tuple[str, ...]) -> list[tuple[Card, Estimate]]:
    found = [(CARDS[name], record.metrics[name]) for name in names if name in record.metrics]
    return [(card, estimate) for card, estimate in found if math.isfinite(estimate.mean)]


def _draw(axes: Axes, rows: list[tuple[Card, Estimate]]) -> None:
    """A dot with its interval for each row, the first on top, its value beside it."""
    for place, (card, estimate) in enumerate(rows):
        colour = QUIET if _is_chance(card) else LEAK if card.kind == "privacy" else CATEGORIES[0]
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            ends = [estimate.low, estimate.high]
            axes.plot(ends, [place, place], color=colour, lw=2.2, alpha=0.45, solid_capstyle="butt")
        axes.plot(estimate.mean, place, "o", color=colour, ms=6)
        written = numbers.share(estimate.mean) if card.ceiling == 1.0 else numbers.quantity(estimate.mean, card.unit)
        axes.annotate(written, (1.0, place), (6, 0), ("axes fraction", "data"), "offset points", va="center", size=9)
    axes.set_yticks(range(len(rows)), [card.heading for card, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _is_chance(card: Card) -> bool:
    return card.name.startswith("control_") or card.name.endswith("_chance")


def _from_zero(axes: Axes, estimate: Estimate) -> None:
    ends = [value for value in (estimate.mean, estimate.high) if math.isfinite(value)]
    axes.set_xlim(0, 1.1 * max(*ends, 1e-12))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
