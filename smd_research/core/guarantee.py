"""What a defense promises, stated so that it can be checked and composed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guarantee:
    """A privacy guarantee; a defense without one returns ``None``, which is an honest value.

    ``unit`` is what one ``epsilon`` protects ("token", "sequence"); ``composition`` says what a whole prompt of
    ``n`` units costs. ``verified`` names the test that would refute the claim.
    """

    notion: str
    unit: str
    epsilon: float
    delta: float = 0.0
    metric: str = ""
    adjacency: str = ""
    sensitivity: float | None = None
    clip: float | None = None
    composition: str = ""
    assumptions: str = ""
    verified: str = ""
    source: str = ""

    def __str__(self) -> str:
        delta = f", delta={self.delta:g}" if self.delta else ""
        return f"{self.notion}: epsilon={self.epsilon:g}{delta} per {self.unit}; {self.composition}"
