"""The prompts on which two sides differ, in a terminal: what either recovered."""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from smd_research.metrics import CARDS
from smd_research.records.record import NO_TEXTS
from smd_research.reports.comparing import Compared, Flip
from smd_research.reports.marks import TokenVerdict, marks
from smd_research.reports.render import numbers
from smd_research.reports.render.prompt_view import guess_text, legend


def show_flips(found: Compared, console: Console, limit: int | None = None) -> None:
    """Print the prompts on which two cells differ, the widest first, and how many are equal.

    Under each prompt stands what either side made of it, coloured as in
    :func:`smd_research.reports.render.prompt_view.show_prompts`.

    Args:
        found: one metric.
        console: where to print.
        limit: how many prompts; all by default.
    """
    label = CARDS[found.metric].label
    names = "".join(f"{side}: {name}  " for side, name in zip("AB", found.names, strict=True) if name)
    console.print(Text(f"{names}{len(found.flips)} of {found.n} prompts differ in {label}", style="bold"))
    if found.flips:
        console.print(legend() if found.texts else Text(NO_TEXTS, style="dim"))
    for flip in found.flips[:limit]:
        _show(flip, found, console)
    if limit is not None and len(found.flips) > limit:
        console.print(Text(f"\n{len(found.flips) - limit} more that differ", style="dim"))
    console.print(Text(f"\n{_equal(found)}"))


def _show(flip: Flip, found: Compared, console: Console) -> None:
    values = " to ".join(_written(value, found.metric) for value in flip.values)
    console.print(Text.assemble("\n", (flip.prompt, "bold"), "  ", (f"A to B: {values}", "dim")))
    if not found.texts:
        return
    truth = Text.assemble(*((mark.truth, "underline" if mark.secret else "") for mark in marks(flip.items[0])))
    console.print(Padding(truth, (0, 0, 0, 5)))
    for name, item in zip("AB", flip.items, strict=True):
        if any(mark.verdict is not TokenVerdict.UNTRIED for mark in marks(item)):
            console.print(Padding(Text.assemble((f"{name}  ", "bold"), guess_text(item)), (0, 0, 0, 2)))


def _equal(found: Compared) -> str:
    if not found.equal:
        return "No prompt is equal on both sides."
    mean = _written(sum(found.equal) / len(found.equal), found.metric)
    return f"{len(found.equal)} of {found.n} prompts are equal on both sides, at {mean} in the mean."


def _written(value: float, metric: str) -> str:
    card = CARDS[metric]
    return numbers.share(value) if card.scale in ("rate", "excess") else numbers.quantity(value, card.unit)
