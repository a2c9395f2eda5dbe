"""What a protocol that multiplies masked integers publishes of itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProtocolParameters:
    """How products are asked for.

    Attributes:
        field: ``wide`` or ``narrow``: the residues.
        visibility: ``strict`` (every product masked) or ``boundary`` (the device runs its part in the clear).
        masking: ``uniform``, ``none``, ``reused`` or ``float``.
        verify: repetitions of Freivalds' check; 0: none.
        masks: rows that masks are prepared for; None: as needed.
        bank: ``memory`` or ``folder``: where masks are kept.
    """

    field: str = "wide"
    visibility: str = "strict"
    masking: str = "uniform"
    verify: int = 2
    masks: int | None = None
    bank: str = "memory"
