"""What a defense promises, stated so that it can be checked and composed."""

import math
from dataclasses import dataclass

from smd_research.core.errors import ConfigError

_UNITS = 16  # of a text, as an example of what it costs


@dataclass(frozen=True)
class Guarantee:
    """A privacy guarantee; a defense without one returns ``None``, which is an honest value.

    Attributes:
        notion: which kind of promise it is; epsilons of different notions do not compare.
        unit: what one ``epsilon`` protects ("token", "sequence", "record").
        epsilon: of one unit.
        delta: of one unit.
        metric: the distance that scales ``epsilon``, where one does.
        adjacency: which two inputs are neighbours.
        sensitivity: how far neighbours lie apart in what is noised.
        clip: the norm that bounds it.
        composition: what a whole prompt of ``n`` units costs, in words.
        unit_epsilon: the most that replacing one unit by any other costs, whatever the others are; None where nothing
            bounds it, and where units share one mechanism, so that several of them cost more than the sum.
        support: which outputs are possible, and whether that depends on the input.
        assumptions: what has to hold besides.
        verified: the test or audit that would refute the claim.
        source: the paper and where in it.
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
    unit_epsilon: float | None = None
    support: str = ""
    assumptions: str = ""
    verified: str = ""
    source: str = ""

    def of_text(self, units: int) -> float:
        """Epsilon of a text of so many units by basic composition; infinite where ``unit_epsilon`` is None.

        Args:
            units: of which it consists, 0 or more; delta adds up with them.
        """
        return math.inf if self.unit_epsilon is None else units * self.unit_epsilon

    def __str__(self) -> str:
        delta = f", delta={self.delta:g}" if self.delta else ""
        whole = self.of_text(_UNITS)
        beside = f" at delta={_UNITS * self.delta:g}" if self.delta else ""
        text = f"; {_UNITS} of them at most {whole:.4g}{beside} by basic composition" if whole < math.inf else ""
        return f"{self.notion}: epsilon={self.epsilon:g}{delta} per {self.unit}; {self.composition}{text}"


def check_epsilon(epsilon: float, name: str = "epsilon") -> None:
    """Refuse an epsilon that is none.

    Args:
        epsilon: of any notion.
        name: what the user calls it.

    Raises:
        ConfigError: unless it is positive and finite.
    """
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"{name}={epsilon:g} is out of range: it must be positive and finite")
