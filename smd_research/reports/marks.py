"""A guess laid beside the truth, token by token: what the per-prompt views show."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from smd_research.records.items import Item


class TokenVerdict(StrEnum):
    """What an attack made of a token."""

    RECOVERED = "recovered"
    WRONG = "wrong"
    ABSTAINED = "abstained"
    UNTRIED = "untried"


@dataclass(frozen=True, repr=False)
class Mark:
    """One token: its text, what was guessed, how that went, and the type of the secret it belongs to (or none)."""

    truth: str
    guess: str
    verdict: TokenVerdict
    secret: str = ""


def marks(item: Item) -> list[Mark]:
    """Every true token of a prompt with its guess.

    Ids decide where the record has them, else texts: two tokens that are parts of one character share a text.
    """
    secret_of = {position: span.type for span in item.spans for position in range(span.start, span.end)}
    return [
        Mark(_printable(text), _printable(_at(item.guess_tokens, i) or ""), _verdict(item, i), secret_of.get(i, ""))
        for i, text in enumerate(item.truth_tokens)
    ]


def _verdict(item: Item, position: int) -> TokenVerdict:
    if not item.guess_tokens:
        return TokenVerdict.UNTRIED
    guess = _at(item.guess_tokens, position)
    if guess is None:
        return TokenVerdict.ABSTAINED
    if item.truth_ids and item.guess_ids:
        same = item.truth_ids[position] == item.guess_ids[position]
    else:
        same = item.truth_tokens[position] == guess
    return TokenVerdict.RECOVERED if same else TokenVerdict.WRONG


def _at(tokens: Sequence[str | None], position: int) -> str | None:
    return tokens[position] if position < len(tokens) else None


def _printable(text: str) -> str:
    """Line breaks as a sign, so that a prompt stays one paragraph; control characters as blanks."""
    return "".join("↵" if c == "\n" else c if c.isprintable() else " " for c in text)
