"""A claim of privacy and what became of it when it was audited."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ClaimAudit:
    """A claim and what became of it.

    Attributes:
        claim: in words, with the pairs of inputs that it is about.
        claimed: epsilon, or what stands for it.
        measured: what the mechanism costs there: exactly, or at least; infinite where an output tells inputs apart.
        holds: whether it is no more than claimed (of a bound: whether it is not refuted).
        how: it was measured.
        n: pairs of inputs or log ratios compared, or draws on each side.
        exact: whether ``measured`` is exact; else it is a lower bound, at the confidence that ``how`` names.
        advantage: of who guesses which of two inputs it was: share right minus share wrong, and its 95 % interval; None
            where nobody guesses.
        differing: share of pairs of inputs whose possible outputs differ; None where no such share was looked for.
        ceiling: the most that could have been measured, by a game that was won every time: no claim from there on can
            be refuted.
    """

    claim: str
    claimed: float
    measured: float
    holds: bool
    how: str
    n: int
    exact: bool = True
    advantage: tuple[float, float, float] | None = None
    differing: float | None = None
    ceiling: float = math.inf

    @property
    def tested(self) -> bool:
        """False of a game that could not have refuted the claim, whatever the mechanism is."""
        return self.claimed < self.ceiling

    @property
    def verdict(self) -> str:
        """``holds``, or ``misses`` and by how much; of a bound, ``not refuted``, ``not tested`` or ``refuted``."""
        if self.holds and not self.tested:
            return f"not tested: such a game shows {self.ceiling:.3g} at most"
        if self.holds:
            return "holds" if self.exact else "not refuted"
        over = self.measured - self.claimed
        word = "misses" if self.exact else "refuted"
        if over <= 0:
            return f"{word}: not the law that is claimed"
        return f"{word} by {over:.3g}" if math.isfinite(over) else f"{word}: nothing bounds it"
