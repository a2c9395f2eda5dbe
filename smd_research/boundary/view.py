"""The adversary's view: a sealed record of everything that crossed the boundary, and nothing else."""

from dataclasses import dataclass, replace
from typing import TypeVar

from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import Message
from smd_research.core.observable import Observable
from smd_research.core.wrapper import BARE, Wrapper

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, repr=False)
class AdversaryView:
    """What the untrusted party saw during one request.

    Values it computed by itself are functions of this record and of the public weights, so they are not stored twice.

    Attributes:
        messages: every message with its direction, in order.
        shows: kinds of values the defense shows.
        length: prompt length in tokens where the protocol gives it away, else None.
        outputs: generated tokens of every stream, as the untrusted party knows them.
        wrapper: the prompt's first and last tokens, where they are a chat template's, which everyone knows.
    """

    messages: tuple[tuple[Direction, Message], ...]
    shows: frozenset[Observable]
    length: int | None
    outputs: tuple[tuple[int, ...], ...]
    wrapper: Wrapper = BARE

    @property
    def output_ids(self) -> tuple[int, ...]:
        """The generated tokens of the first stream, which is the only one where nothing hides the prompt."""
        return self.outputs[0] if self.outputs else ()

    @property
    def streams(self) -> int:
        """How many streams were decoded at once."""
        return max(len(self.outputs), 1)

    def stream(self, index: int) -> "AdversaryView":
        """The view of one stream alone: its rows of every message, and its output.

        Raises:
            IndexError: for a stream there is not.
        """
        if not 0 <= index < self.streams:
            raise IndexError(f"stream {index} of {self.streams}")
        messages = tuple((way, message.of_stream(index)) for way, message in self.messages)
        return replace(self, messages=messages, outputs=self.outputs[index : index + 1])

    def of(self, kind: type[M]) -> list[M]:
        """All messages of one type, in order."""
        return [message for _, message in self.messages if isinstance(message, kind)]

    def __repr__(self) -> str:
        return f"AdversaryView(messages={len(self.messages)}, shows={sorted(self.shows)})"
