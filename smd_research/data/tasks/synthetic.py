"""Tasks on generated text: the class is in what a text says, not in a word of its template.

What is tuned on and what is evaluated share neither templates nor secret values: to know a sentence by heart is to know
nothing. Nor do they share any with the generator's training split, which the public model and every attacker's corpus
come from. In half of the messages a clause speaks for the other class (somebody else's emergency, a friendly word
before a complaint).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from smd_research.core.seeds import sequence
from smd_research.data.synthetic.grammar import Expansion, families_of_split
from smd_research.data.synthetic.partition import CorpusSplit
from smd_research.data.synthetic.pools import pools
from smd_research.data.synthetic.values import Values
from smd_research.data.tasks.base import PRIVATE, Example, Task, check_split

_DISTRACTED = 0.5  # share of the texts with a clause that speaks for the other class

# What a kind of note is made of; no section but that of a message from a patient marks one kind by itself.
_NOTES = {
    "admission": ("presentation", "history", "findings"),
    "progress": ("findings", "assessment", "plan"),
    "discharge": ("assessment", "medication", "plan"),
    "referral": ("presentation", "medication", "request"),
    "letter": ("history", "toyou", "plan"),
    "message": ("mymessage", "medication", "contact"),
}


class _Generated(Task):
    """Texts of a register of the generator; classes in equal shares, in random order."""

    def examples(self, split: str, n: int, seed: int) -> list[Example]:
        check_split(split)
        return self._drawn(PRIVATE[split], n, seed, split)

    def public(self, n: int, seed: int) -> list[Example]:
        return self._drawn(CorpusSplit.TRAIN, n, seed, "public")

    def _drawn(self, split: CorpusSplit, n: int, seed: int, purpose: str) -> list[Example]:
        base = int(sequence(seed, "task", type(self).__name__, split, purpose).generate_state(1, "uint64")[0])
        return [self._example(split, Random(f"{base}/{number}"), purpose, number) for number in range(n)]

    def _example(self, split: CorpusSplit, rng: Random, purpose: str, number: int) -> Example:
        label = int(rng.random() * len(self.labels))
        register, sections = self._sections(label, rng)
        values = Values(split, pools(split), rng)
        expansion = Expansion(families_of_split(register, split), values.draw, rng)
        for place, section in enumerate(sections):
            if place:
                expansion.write(" ")
            expansion.expand(section)
        name = f"{type(self).__name__.lower()}-{purpose}-{number}"
        return Example(name, "".join(expansion.parts), label, spans=tuple(expansion.spans))

    @abstractmethod
    def _sections(self, label: int, rng: Random) -> tuple[str, list[str]]:
        """The register of a text of a class, and the sections that it is made of, in order."""


@dataclass(frozen=True, kw_only=True)
class NoteType(_Generated):
    """Which kind of clinical note it is: admission, progress, discharge, referral, letter, message."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(_NOTES)

    def _sections(self, label: int, rng: Random) -> tuple[str, list[str]]:
        return "clinical", _shuffled(list(_NOTES[self.labels[label]]), rng)


@dataclass(frozen=True, kw_only=True)
class Urgency(_Generated):
    """Whether a patient's message can wait: routine or urgent."""

    @property
    def labels(self) -> tuple[str, ...]:
        return ("routine", "urgent")

    def _sections(self, label: int, rng: Random) -> tuple[str, list[str]]:
        own = [("steady", "sudden")[label], "background"]
        other = ["elsewhere_urgent", "elsewhere_calm"][label]
        return "messages", _with_distraction(own, other, "ask", rng)


@dataclass(frozen=True, kw_only=True)
class Sentiment(_Generated):
    """What the writer of a message thinks in the end: negative or positive."""

    @property
    def labels(self) -> tuple[str, ...]:
        return ("negative", "positive")

    def _sections(self, label: int, rng: Random) -> tuple[str, list[str]]:
        own = [("complaint", "praise")[label], "occasion"]
        other = ["granted_praise", "granted_complaint"][label]
        return "messages", _with_distraction(own, other, ("verdict_bad", "verdict_good")[label], rng)


def _with_distraction(own: list[str], other: str, last: str, rng: Random) -> list[str]:
    """Own clauses in random order, in some texts with one that speaks for the other class, and what comes last."""
    body = [*own, other] if rng.random() < _DISTRACTED else own
    return [*_shuffled(body, rng), last]


def _shuffled(items: list[str], rng: Random) -> list[str]:
    shuffle: Callable[[list[str]], None] = rng.shuffle
    shuffle(items)
    return items
