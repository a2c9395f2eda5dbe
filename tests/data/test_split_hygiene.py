"""No secret value of a private text is in anything that an attacker holds: over every task and every kind of data."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from smd_research.data.prompts import Document
from smd_research.data.reference import PythonReference
from smd_research.data.sources import Synthetic
from smd_research.data.synthetic import MIXED, REGISTERS
from smd_research.data.tasks.base import SPLITS, Task
from smd_research.data.tasks.next_token import NextToken
from smd_research.data.tasks.synthetic import NoteType, Sentiment, Urgency

SIZES = {"train": 400, "validation": 100, "evaluation": 200, "tokens": 96}
TASKS: dict[str, Task] = {
    "note_type": NoteType(**SIZES),
    "urgency": Urgency(**SIZES),
    "sentiment": Sentiment(**SIZES),
    **{f"next_token {register}": NextToken(**SIZES, register=register) for register in (MIXED, *REGISTERS)},
}
SOURCES = [MIXED, *REGISTERS]
SHORTEST = 5
"""Characters below which a value is a piece of ordinary words (a day, a number of two digits)."""


@dataclass(frozen=True)
class Held:
    """Text of an attacker: as it stands, and the values that are marked in it."""

    text: str
    values: frozenset[str]

    @classmethod
    def of(cls, documents: Sequence[Document]) -> "Held":
        return cls("\n".join(one.text for one in documents).casefold(), frozenset(values(documents)))

    def known(self, secrets: set[str]) -> set[str]:
        """Secrets that it holds: as values of its own, or, those with a digit, anywhere in the text.

        A name may be part of another one (of a person, of a company). ``1 May 2018`` is not in ``11 May 2018``, nor
        ``$3,008`` in ``$3,008.50``.
        """
        near = {value for value in secrets if re.search(r"\d", value) and value in self.text}
        whole = {v for v in near if re.search(rf"(?<![\w$.,+-]){re.escape(v)}(?!\w|[.,@-]\w)", self.text)}
        return (secrets & self.values) | whole


@pytest.fixture(scope="module")
def held() -> dict[str, Held]:
    """What an attacker holds, by source: the corpus of each kind of data, at several seeds."""
    return {
        source: Held.of([one for seed in (0, 1) for one in Synthetic(source).documents("train", 1000, seed)])
        for source in SOURCES
    }


def values(documents: Iterable[Document]) -> set[str]:
    found = {one.text[span.start : span.end].casefold() for one in documents for span in one.spans}
    return {value for value in found if len(value) >= SHORTEST}


def examples(task: Task, seed: int) -> Iterator[Document]:
    return (one.document for split in SPLITS for one in task.examples(split, 200, seed))


@pytest.mark.parametrize("name", TASKS)
def test_no_secret_of_a_private_text_is_in_the_attackers_text(name: str, held: dict[str, Held]) -> None:
    task = TASKS[name]
    secrets = values(examples(task, 0))
    assert len(secrets) > 50, "the texts of a generated task mark their secrets"
    public = Held.of([one.document for one in task.public(1000, 0)])
    for source, one in {**held, "public texts like the task's": public}.items():
        assert not one.known(secrets), source


@pytest.mark.parametrize("name", TASKS)
def test_what_is_evaluated_shares_no_secret_with_what_is_tuned_on(name: str) -> None:
    task = TASKS[name]
    tuned = values(one.document for one in task.examples("train", 400, 0))
    scored = values(one.document for one in task.examples("evaluation", 200, 0))
    assert not tuned & scored


@pytest.mark.parametrize("source", SOURCES)
def test_no_secret_of_a_prompt_is_in_the_attackers_text(source: str, held: dict[str, Held]) -> None:
    secrets = values(Synthetic(source).documents("evaluation", 400, 0))
    assert secrets
    for one in held.values():
        assert not one.known(secrets)


def test_the_test_would_see_a_text_of_the_public_split(held: dict[str, Held]) -> None:
    secrets = values(Synthetic(MIXED).documents("train", 100, 0))
    assert len(held[MIXED].known(secrets)) == len(secrets)


def test_private_pages_of_the_manual_are_not_public() -> None:
    task = NextToken(**SIZES, register="reference")
    private = [{one.text for one in task.examples(split, 1000, 0)} for split in SPLITS]
    public = {one.text for one in PythonReference().documents("train", 10_000, 0)}
    for one, other in itertools.combinations([*private, public], 2):
        assert one
        assert not one & other
