"""An active attack in the honest party's place, which lets that party do its work all the same."""

from collections.abc import Sequence

from torch import Tensor

from smd_research.boundary import Untrusted
from smd_research.boundary.messages import Message


class Impersonation(Untrusted):
    """Passes everything on to the honest party, the measurement tap included; an attack changes what it wants to.

    Args:
        honest: whose place is taken.
    """

    def __init__(self, honest: Untrusted) -> None:
        super().__init__()
        self._honest = honest

    def handle(self, message: Message) -> Message | None:
        return self._honest.handle(message)

    def arm(self, forced: Sequence[int] | None) -> None:
        super().arm(forced)
        self._honest.arm(forced)

    def tapped(self) -> list[Tensor]:
        return self._honest.tapped()

    def memory(self) -> dict[str, int]:
        return self._honest.memory()
