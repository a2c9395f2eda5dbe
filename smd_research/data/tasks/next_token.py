"""Private text without classes: the model is tuned to write on."""

from dataclasses import dataclass

from smd_research.core.seeds import sequence
from smd_research.data.reference import stream
from smd_research.data.tasks.base import Example, Task, check_split


@dataclass(frozen=True, kw_only=True)
class NextToken(Task):
    """Generated documents with other values than the public text of the same seed, or Python's reference manual.

    Attributes:
        register: of the generator, ``mixed`` for all, or ``reference``.
    """

    register: str = "mixed"  # ABC has a method of this name, which a field without a default would take for one

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def examples(self, split: str, n: int, seed: int) -> list[Example]:
        check_split(split)
        own = int(sequence(seed, "task", "next_token").generate_state(1)[0])
        return [Example(one.id, one.text, 0) for one in stream(self.register, split, n, own)]
