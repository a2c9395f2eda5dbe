"""What an attack returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from smd_research.core.wrapper import Wrapper

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Spent:
    """What an attack spent: candidates evaluated, floating-point operations of the engine, solver steps."""

    candidates: int = 0
    flops: float = 0.0
    steps: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.candidates + other.candidates, self.flops + other.flops, self.steps + other.steps)


@dataclass(frozen=True)
class Verdict:
    """Which of several candidate prompts is the real one, by one line of evidence.

    Attributes:
        judge: the line of evidence.
        posterior: for each candidate the probability of being real, by this evidence; sums to one.
        picked: the candidate picked: a most probable one, ties broken at random.
        requests: after how many requests of the same secret it was sure (0.95), where it may see several; None: never.
    """

    judge: str
    posterior: tuple[float, ...]
    picked: int
    requests: int | None = None


@dataclass(frozen=True)
class Guess:
    """A reconstruction of one prompt.

    Attributes:
        ids: the best token id at each position; ``-1`` where the attack abstains.
        ranked: for each position, candidate ids best first (may be empty: then ``ids`` is the only candidate).
        certified: True when the attack can prove itself (residual at numerical zero, exact match on replay);
            False when its own check failed; None when it has no check.
        residual: the value of the check, in the attack's own unit.
        spent: what it cost the attacker.
        exhausted: True when a budget ended the search early.
        candidates: where several prompts stand side by side and one is real: each as the attack read it.
        verdicts: what each line of evidence says of them; ``ids`` follows the first.
        choices: where the attack chooses among public alternatives, their indices, best first.
        readable: whether it reads as public text: a view of the attack's own, no proof; None when it has none.
        facts: what else the attack says of itself, by metric (which stage named how many tokens, in how many seconds);
            no part of the guess when two are compared.
    """

    ids: tuple[int, ...]
    ranked: tuple[tuple[int, ...], ...] = ()
    certified: bool | None = None
    residual: float | None = None
    spent: Spent = field(default_factory=Spent)
    exhausted: bool = False
    candidates: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    verdicts: tuple[Verdict, ...] = ()
    choices: tuple[int, ...] = ()
    readable: bool | None = None
    facts: Mapping[str, float] = field(default_factory=dict, compare=False)

    def at(self, place: slice) -> "Guess":
        """The guess at some positions alone."""
        candidates = tuple(one[place] for one in self.candidates)
        return replace(self, ids=self.ids[place], ranked=self.ranked[place], candidates=candidates)

    def wrapped(self, wrapper: Wrapper) -> "Guess":
        """A guess at what the user wrote, completed with the public tokens around it."""
        if not wrapper:
            return self
        before, behind = (tuple((token,) for token in end) for end in (wrapper.head, wrapper.tail))
        ranked = (*before, *self.ranked, *behind) if self.ranked else ()
        candidates = tuple(map(wrapper.around, self.candidates))
        return replace(self, ids=wrapper.around(self.ids), ranked=ranked, candidates=candidates)


@dataclass(frozen=True, repr=False)
class WeightGuess:
    """A reconstruction of a model's weights.

    Attributes:
        weights: restored tensors by the name and in the layout of the model's ``state_dict``; what is not named stays
            as the adversary holds it.
        certified: True when the attack can prove itself, False when its own check failed, None when it has no check.
        residual: the value of that check, in the attack's own unit.
        spent: what it cost the attacker.
        facts: what else the attack says of itself, by metric (training steps, the learning rate it chose, ...).
    """

    weights: Mapping[str, "Tensor"]
    certified: bool | None = None
    residual: float | None = None
    spent: Spent = field(default_factory=Spent)
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, repr=False, eq=False)
class MappingGuess:
    """A reconstruction of a secret substitution of token ids.

    Attributes:
        mapping: for each cipher id the plain id ``[V']`` (int64), ``-1`` where the attack abstains; several cipher ids
            may share a plain one (homophones).
        score: what the attack maximised, higher is better; comparable between guesses of the same attack only.
        sure: for each cipher id how far its choice stands out ``[V']``, 0 (not at all) to 1; None: not known.
        certified: True when the attack can prove itself, False when its own check failed, None when it has no check.
        residual: the value of the check, in the attack's own unit.
        spent: what it cost the attacker.
        facts: what else the attack says of itself, by metric (which method won, iterations, ...).
        readable: whether what was encoded reads as public text through it: a view of the attack's own, no proof.
    """

    mapping: "NDArray[np.int64]"
    score: float | None = None
    sure: "NDArray[np.float64] | None" = None
    certified: bool | None = None
    residual: float | None = None
    spent: Spent = field(default_factory=Spent)
    facts: Mapping[str, float] = field(default_factory=dict)
    readable: bool | None = None
