"""What a task is: labelled texts in three disjoint parts, and how many of each are used."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.data.prompts import Document, Span
from smd_research.data.synthetic.partition import CorpusSplit

TRAIN, VALIDATION, EVALUATION = "train", "validation", "evaluation"
SPLITS = (TRAIN, VALIDATION, EVALUATION)

PRIVATE = {
    TRAIN: CorpusSplit.EVALUATION,
    VALIDATION: CorpusSplit.EVALUATION,
    EVALUATION: CorpusSplit.VALIDATION,
}
"""The split of the generator that each part of a task's private texts comes from: never the one that is public."""


@dataclass(frozen=True, repr=False)
class Example:
    """A text and its class; the repr never shows the text.

    Attributes:
        id: stable name.
        text: what is classified.
        label: index of the class; 0 where the task has none.
        pair: second text of a task on pairs.
        spans: secrets of the text, where they are marked.
    """

    id: str
    text: str
    label: int
    pair: str | None = None
    spans: tuple[Span, ...] = ()

    @property
    def document(self) -> Document:
        """The text, with its pair on a line of its own, as a document to tokenise."""
        text = self.text if self.pair is None else f"{self.text}\n{self.pair}"
        return Document(self.id, text, self.spans, "task")

    def __repr__(self) -> str:
        return f"Example(id={self.id!r}, characters={len(self.text)}, label={self.label})"


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A downstream task.

    Attributes:
        train: texts to tune on.
        validation: texts that decide when tuning stops and which state is best.
        evaluation: texts on which the tuned model is scored.
        tokens: texts are cut to this many tokens.

    Raises:
        ConfigError: for a part without a text.
    """

    train: int
    validation: int
    evaluation: int
    tokens: int

    def __post_init__(self) -> None:
        for name in (*SPLITS, "tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"task.{name}={getattr(self, name)}: give at least one")

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; none where the next token is predicted."""

    @abstractmethod
    def examples(self, split: str, n: int, seed: int) -> list[Example]:
        """At most ``n`` examples of a split, chosen and ordered by ``seed``; no text is in two splits.

        Raises:
            ConfigError: for an unknown split, or data that cannot be read; names what is wrong in one line.
        """

    def public(self, n: int, seed: int) -> list[Example]:
        """At most ``n`` texts like the task's that are no secret, other than its examples; mostly there are none."""
        return []


def check_split(split: str) -> None:
    """Checks that a split exists.

    Raises:
        ConfigError: naming those that do.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")


def drawn(examples: Sequence[Example], split: str, n: int, seed: int) -> list[Example]:
    """At most ``n`` of the examples, in an order that ``seed`` decides."""
    order = generator(seed, "task", split).permutation(len(examples))
    return [examples[index] for index in order[:n]]
