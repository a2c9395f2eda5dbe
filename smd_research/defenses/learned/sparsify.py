"""Sparsification: the client sends the largest coordinates of each row and leaves the rest out.

Which coordinates are large says much of a token by itself: nothing is promised.
"""

from dataclasses import dataclass

from smd_research.core.errors import ConfigError
from smd_research.defenses.learned.base import Learned
from smd_research.defenses.learned.lessons import Lesson, Schedule, StatesOfText
from smd_research.mechanisms.releases import Release, SparseRelease


@dataclass(frozen=True)
class SparsityLesson(Lesson):
    """Options of sparsification.

    Attributes:
        share: of the coordinates of a row that are sent.
    """

    share: float

    def begin(self, sample: StatesOfText) -> tuple[Release, None]:
        """An adapter that leaves states as they are, and the largest coordinates of what it makes."""
        return SparseRelease(self.share, sample.moments), None


class Sparsify(Learned):
    """Top-k sparsification of what a client sends; deterministic. No guarantee.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        share: see ``SparsityLesson``.
        steps: of training that lets the client put into the coordinates sent what the provider needs; 0 has none, and
            needs no public text.
        batch: see ``lessons.Schedule``, as for the next two.
        row_tokens: tokens of a row.
        learning_rate: peak.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(
        self,
        layer: int = 1,
        share: float = 0.1,
        steps: int = 100,
        batch: int = 4,
        row_tokens: int = 64,
        learning_rate: float = 2e-3,
        wire_dtype: str = "fp32",
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"defense.share={share:g} is out of range: it is above 0 and at most 1")
        super().__init__(layer, Schedule(steps, batch, row_tokens, learning_rate), wire_dtype)
        self._lesson = SparsityLesson(float(share))

    @property
    def lesson(self) -> SparsityLesson:
        """What the client learns."""
        return self._lesson

    def untrained(self) -> Release | None:
        """The largest coordinates of states as they are, without steps."""
        return None if self.schedule.steps else SparseRelease(self._lesson.share)
