"""How to read a metric: unit, direction, chance level and ceiling.

A card stands beside the function that computes its metric, or where a metric is only counted or timed, with its kin.
Whatever card, or tuple of cards, a module of this package names is in :data:`smd_research.metrics.CARDS`.
"""

from dataclasses import dataclass
from typing import Literal

from smd_research.metrics.estimate import Scale

CONTROL = "the same attack on the views of other prompts of the same source and length"
"""Chance of most leaks: what an attack gets that was given the wrong view."""

PRIOR = "the prior-only and random attacks"
"""Chance of a control itself."""


@dataclass(frozen=True)
class Card:
    """How to read a metric.

    Attributes:
        name: as it stands in records.
        label: as it stands in tables and figures.
        kind: privacy, utility or cost.
        unit: of the value; empty for a share.
        better: direction as seen by the user who is to be protected: a recovered token is bad.
        chance: what an attack that learned nothing scores, and how it is measured; empty where it has no meaning.
        ceiling: the best value there can be, or the value of the unprotected model; None when unbounded.
        scale: how per-prompt values are averaged.
        description: what is measured.
    """

    name: str
    label: str
    kind: Literal["privacy", "utility", "cost"]
    unit: str
    better: Literal["lower", "higher"]
    chance: str
    ceiling: float | None
    scale: Scale
    description: str

    @property
    def heading(self) -> str:
        """Label and unit, as an axis or a column wants them."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @classmethod
    def leak(cls, name: str, label: str, description: str, chance: str = CONTROL) -> "Card":
        """The card of a share in [0, 1] that an attack recovers."""
        return cls(name, label, "privacy", "", "lower", chance, 1.0, "rate", description)

    @classmethod
    def known(cls, name: str, label: str, description: str) -> "Card":
        """The card of a share in [0, 1] that is no measurement: a level of chance, or a bound that is claimed."""
        return cls(name, label, "privacy", "", "lower", "itself", 1.0, "known", description)

    @classmethod
    def cost(
        cls,
        name: str,
        label: str,
        unit: str,
        description: str,
        better: Literal["lower", "higher"] = "lower",
        scale: Scale = "positive",
    ) -> "Card":
        """The card of an amount of time, traffic, work or memory."""
        return cls(name, label, "cost", unit, better, "", None, scale, description)
