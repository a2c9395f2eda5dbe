"""One cell prompt by prompt, in a terminal."""

import math
from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from smd_research.core.errors import RecordError
from smd_research.records.items import Item, counted_secrets, read_items
from smd_research.records.record import NO_TEXTS, Record
from smd_research.reports.marks import Mark, TokenVerdict, marks
from smd_research.reports.render import numbers

_STYLE = {
    TokenVerdict.RECOVERED: "bold green",
    TokenVerdict.WRONG: "red",
    TokenVerdict.ABSTAINED: "bright_black",
    TokenVerdict.UNTRIED: "",
}
_ABSTAINED = "·"


def show_prompts(
    record: Record, console: Console | None = None, limit: int | None = None, secret: str | None = None
) -> None:
    """Print the prompts of a record: the truth, and under it the guess where it differs.

    Recovered tokens are green, wrong ones red, abstentions grey; secrets are underlined.

    Args:
        record: of an attacked cell.
        console: where to print; a terminal by default.
        limit: how many prompts; all by default.
        secret: show only prompts that hold a secret of this type, e.g. ``name``.

    Raises:
        RecordError: when the record holds no prompts, or none with such a secret.
    """
    items = [item for item in read_items(record.items) if item.length]  # some are no prompts
    if items and secret:
        items = [item for item in items if secret in {count.type for count in counted_secrets(item)}]
        if not items:
            raise RecordError(f"{record.path or record.cell.readable}: no prompt holds a secret of type '{secret}'")
    if not items:
        reason = f" ({record.reason})" if record.reason else ""
        raise RecordError(
            f"{record.path or record.cell.readable} is {record.status}{reason}: it has no prompts to show"
        )
    console = console or Console()
    console.print(Text(record.cell.readable, style="bold"))
    console.print(legend() if record.texts else Text(NO_TEXTS, style="dim"))
    for item in items[:limit]:
        console.print() if record.texts else None
        console.print(heading(item))
        if not record.texts:
            continue
        console.print(Padding(truth_text(item), (0, 0, 0, 2)))
        if any(mark.verdict in (TokenVerdict.WRONG, TokenVerdict.ABSTAINED) for mark in marks(item)):
            console.print(Padding(guess_text(item), (0, 0, 0, 2)))
    if limit is not None and len(items) > limit:
        console.print(Text(f"\n{len(items) - limit} more prompts", style="dim"))


def legend() -> Text:
    """What the colours mean."""
    words = [(str(v), _STYLE[v]) for v in (TokenVerdict.RECOVERED, TokenVerdict.WRONG, TokenVerdict.ABSTAINED)]
    return Text.assemble(*_spaced([*words, ("secret", "underline")]))


def heading(item: Item) -> Text:
    """The prompt's name and its scores."""
    shown = [(item.prompt_id, "bold")]
    for name, label in (("token_accuracy", "tokens"), ("span_exact", "secrets")):
        value = item.metrics.get(name, math.nan)
        if not math.isnan(value):
            shown.append((f"{label} {numbers.share(value)}", "dim"))
    return Text.assemble(*_spaced(shown))


def truth_text(item: Item) -> Text:
    """The prompt, each token coloured by what the attack made of it."""
    return Text.assemble(*((mark.truth, _style(mark)) for mark in marks(item)))


def guess_text(item: Item) -> Text:
    """The guess, abstentions as dots."""
    return Text.assemble(
        *((_ABSTAINED if m.verdict is TokenVerdict.ABSTAINED else m.guess, _style(m)) for m in marks(item))
    )


def _style(mark: Mark) -> str:
    return f"{_STYLE[mark.verdict]} {'underline' if mark.secret else ''}".strip()


def _spaced(parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [piece for part in parts for piece in (part, ("  ", ""))]
