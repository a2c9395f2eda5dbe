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
        margin_bits: factor ``2**margin_bits`` by which an activation may exceed what public text reached.
        masks: rows that masks are prepared for; None: as needed.
        bank: ``memory`` or ``folder``: where masks are kept.
    """

    field: str = "wide"
    visibility: str = "strict"
    masking: str = "uniform"
    verify: int = 2
    margin_bits: int = 2
    masks: int | None = None
    bank: str = "memory"


@dataclass(frozen=True)
class FixedPointParameters:
    """Fixed point of masked products; not published where none is masked.

    Attributes:
        fraction_bits: of the inputs of each product, in order.
    """

    fraction_bits: tuple[int, ...]
