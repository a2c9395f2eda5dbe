"""Prompts and what an attack made of them, written small: a text once for all cells that were given it.

Most cells of a sweep are asked the same prompts, and many guesses equal the truth. So the prompts of a cell, a *set*,
are a document of their own, and a cell holds a letter for each token and the texts of the wrong guesses alone.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import TypedDict

from smd_research.metrics import CARDS
from smd_research.records.items import Item, counted_secrets
from smd_research.reports.marks import TokenVerdict, marks

LETTERS = {
    TokenVerdict.RECOVERED: "r",
    TokenVerdict.WRONG: "w",
    TokenVerdict.ABSTAINED: "a",
    TokenVerdict.UNTRIED: "u",
}
"""What stands for the verdict of a token."""


class PromptSet(TypedDict):
    """Prompts: names, kinds of text, the text of each token, and secrets as ``[start, end, type]``."""

    names: list[str]
    sources: list[str]
    tokens: list[list[str]]
    secrets: list[list[tuple[int, int, str]]]


class Guesses(TypedDict):
    """What an attack made of the prompts of a set.

    ``verdicts`` has a letter of :data:`LETTERS` a token; ``wrong`` the texts guessed at the letters ``w``, in order;
    ``scores`` each privacy metric prompt by prompt.
    """

    set: str
    verdicts: list[str]
    wrong: list[list[str]]
    scores: dict[str, list[float | None]]


class Counts(TypedDict):
    """What is left where texts were not recorded: ``found`` has ``[type, secrets, of them found]`` a prompt."""

    names: list[str]
    lengths: list[int]
    found: list[list[tuple[str, int, int]]]
    scores: dict[str, list[float | None]]


def prompts_of(items: Sequence[Item]) -> list[Item]:
    """The items that are prompts; others are documents or trials, which have no text."""
    return [item for item in items if item.length]


def prompt_set(items: Sequence[Item]) -> tuple[str, PromptSet]:
    """The prompts of items and a name for them, which equal prompts share."""
    found = PromptSet(
        names=[item.prompt_id for item in items],
        sources=[item.source for item in items],
        tokens=[[mark.truth for mark in marks(item)] for item in items],
        secrets=[[(span.start, span.end, span.type) for span in item.spans] for item in items],
    )
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return digest[:16], found


def guesses(items: Sequence[Item], name: str) -> Guesses:
    """What an attack made of the prompts of a set."""
    marked = [marks(item) for item in items]
    return Guesses(
        set=name,
        verdicts=["".join(LETTERS[mark.verdict] for mark in found) for found in marked],
        wrong=[[mark.guess for mark in found if mark.verdict is TokenVerdict.WRONG] for found in marked],
        scores=_scores(items),
    )


def counts(items: Sequence[Item]) -> Counts:
    """The numbers of items whose texts were not recorded."""
    return Counts(
        names=[item.prompt_id for item in items],
        lengths=[item.length for item in items],
        found=[[(one.type, one.count, one.found) for one in counted_secrets(item)] for item in items],
        scores=_scores(items),
    )


def _scores(items: Sequence[Item]) -> dict[str, list[float | None]]:
    """The leaks of each prompt, controls left out, to three digits."""
    names = dict.fromkeys(name for item in items for name in item.metrics if _is_leak(name))
    return {name: [_rounded(item.metrics.get(name, math.nan)) for item in items] for name in names}


def _is_leak(name: str) -> bool:
    return name in CARDS and CARDS[name].kind == "privacy" and not name.startswith(("control_", "excess_"))


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.3g}")
