"""What an attack returns."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spent:
    """What an attack spent: candidates evaluated, floating-point operations of the engine, solver steps."""

    candidates: int = 0
    flops: float = 0.0
    steps: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.candidates + other.candidates, self.flops + other.flops, self.steps + other.steps)


@dataclass(frozen=True)
class Guess:
    """A reconstruction of one prompt.

    Attributes:
        ids: the best token id at each position; ``-1`` where the attack abstains.
        ranked: for each position, candidate ids best first (may be empty: then ``ids`` is the only candidate).
        certified: True when the attack can prove itself (residual at numerical zero, exact match on replay);
            False when its own check failed; None when it has no check.
        residual: the value of that check, in the attack's own unit.
        spent: what it cost the attacker.
        exhausted: True when a budget ended the search early.
        choices: where the attack chooses among public alternatives, their indices, best first.
    """

    ids: tuple[int, ...]
    ranked: tuple[tuple[int, ...], ...] = ()
    certified: bool | None = None
    residual: float | None = None
    spent: Spent = field(default_factory=Spent)
    exhausted: bool = False
    choices: tuple[int, ...] = ()
