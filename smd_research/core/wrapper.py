"""What everyone knows of a prompt: the tokens that a chat template puts around what the user wrote."""

from collections.abc import Sequence
from dataclasses import dataclass

NO_TEMPLATE = "data.chat=true: the model's tokenizer has no chat template: leave data.chat=false, or take a chat model"
"""What a user reads who wants prompts wrapped for a model that is none to chat with."""


@dataclass(frozen=True)
class Wrapper:
    """Public tokens around a prompt's own.

    Attributes:
        head: token ids before them: a system part, the marker of the user's role.
        tail: token ids behind them: the end of the message, the marker that the model answers after.
    """

    head: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)

    def place(self, length: int) -> slice:
        """Where the user's tokens stand in a prompt of ``length`` tokens."""
        return slice(len(self.head), length - len(self.tail))

    def around(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The whole prompt for the user's tokens."""
        return (*self.head, *ids, *self.tail)

    def known(self, length: int) -> dict[int, int]:
        """The public token of each of its positions in a prompt of ``length`` tokens."""
        behind = length - len(self.tail)
        return dict(enumerate(self.head)) | dict(enumerate(self.tail, start=behind))


BARE = Wrapper()
"""Nothing is put around a prompt."""
