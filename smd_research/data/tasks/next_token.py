"""Private text without classes: the model is tuned to write on."""

from dataclasses import dataclass

from smd_research.core.seeds import sequence
from smd_research.data.reference import REFERENCE, private
from smd_research.data.synthetic import generate
from smd_research.data.tasks.base import PRIVATE, Example, Task, check_split


@dataclass(frozen=True, kw_only=True)
class NextToken(Task):
    """Generated documents, or pages of Python's reference manual, of which the public text holds none.

    Attributes:
        register: of the generator, ``mixed`` for all, or ``reference``.
    """

    register: str = "mixed"  # ABC has a method of this name, which a field without a default would take for one

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def examples(self, split: str, n: int, seed: int) -> list[Example]:
        check_split(split)
        own = int(sequence(seed, "task", "next_token", split).generate_state(1)[0])
        found = (
            private(split, n, own) if self.register == REFERENCE else generate(self.register, PRIVATE[split], n, own)
        )
        return [Example(one.id, one.text, 0, spans=one.spans) for one in found]
