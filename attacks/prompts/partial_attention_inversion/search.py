"""Search over token assignments: assume the most certain decisions, deduce, refute, polish."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from attacks.prompts.partial_attention_inversion.certificate import misfit
from attacks.prompts.partial_attention_inversion.deduction import ContradictionError, Rows, propagate
from attacks.prompts.partial_attention_inversion.measurements import Candidates, Measurements
from attacks.prompts.partial_attention_inversion.pursuit import Belief, Decision, detect, equations_for, polish

Assumption = list[tuple[int, int]]
"""(position, token) pairs taken for true together."""

# Decisions at least this share as certain as the most certain one are assumed together with it.
_TOGETHER = 0.5


@dataclass(frozen=True)
class Effort:
    """How hard the solver tries; part of a cell's identity.

    Attributes:
        shortlist: most candidates kept at a position.
        equations: most linear equations drawn for one round of a detection.
        work: multiply-adds that one such round may take; fewer equations are drawn for more candidates.
        rounds: detections and refutations of one start; the anytime budget.
        sweeps: coordinate and pair sweeps over one complete assignment.
        restarts: further starts, guided by the language-model prior where there is one.
        prior_weight: weight of the prior's log-probability beside the measurements' in a restart.
        ranked: candidates reported at each position.
    """

    shortlist: int = 8192
    equations: int = 16384
    work: float = 1e11
    rounds: int = 6
    sweeps: int = 12
    restarts: int = 3
    prior_weight: float = 1.0
    ranked: int = 10


@dataclass
class Search:
    """One prompt's search: the best assignment so far, and what was spent.

    Attributes:
        seen: the measurements.
        rows: their masses and tolerances.
        sound: whether the row maxima are consistent, so that deductions may be drawn.
        effort: the budget.
        rng: draws equations.
        best: token ids of the best assignment so far.
        residual: its misfit, in units of rounding.
        scored: (position, token) pairs scored.
        rounds: detections and refutations.
        flops: floating-point operations of the detections.
        exhausted: whether a start ran out of rounds.
        beliefs: what the last detection held of every position.
    """

    seen: Measurements
    rows: Rows
    sound: bool
    effort: Effort
    rng: np.random.Generator
    best: list[int] = field(default_factory=list)
    residual: float = float("inf")
    scored: int = 0
    rounds: int = 0
    flops: float = 0.0
    exhausted: bool = False
    beliefs: list[Belief] = field(default_factory=list)

    @property
    def explained(self) -> bool:
        """Whether rounding explains what the best assignment leaves."""
        return self.residual <= 1

    def start(self, state: list[Candidates], bias: Sequence[Tensor] | None) -> None:
        """One depth-first descent from a state to a complete assignment, most certain decisions first.

        What a detection believes is offered at once; while that leaves the measurements unexplained, the most certain
        of it is assumed and propagated. A refuted batch is retried with its most certain member alone; a refuted single
        assumption removes that token (sound, as far as the tolerances are), and then the one before it. In the end the
        last beliefs are polished.

        Args:
            state: possible tokens of each position, deduced.
            bias: log prior ``[vocabulary]`` of each position, or None.
        """
        self._descend(state, bias)
        if self.explained or not any(len(c) > 1 for c in state):
            return
        shortlist = [belief.candidates for belief in self.beliefs]
        self.scored += sum(map(len, shortlist))
        work, limit = self.effort.work, self.effort.equations
        equations = equations_for(self.seen, self.rows, shortlist, work, limit, self.rng)[0]
        self.offer(state, polish(equations, self.beliefs, self.rng, self.effort.sweeps))

    def _descend(self, state: list[Candidates], bias: Sequence[Tensor] | None) -> None:
        """Assume and refute until the measurements are explained, no assumption is left, or no round is."""
        trail: list[tuple[list[Candidates], Assumption]] = []
        last = self.rounds + (self.effort.rounds if self.sound else 0)  # what cannot be refuted is believed at once
        while any(len(c) > 1 for c in state):
            decisions = self._detect(state, bias)
            if self.explained:
                return
            if self.rounds >= last:
                self.exhausted = True
                return
            certain = decisions[0][0] * _TOGETHER
            assumed = [(p, token) for margin, p, token in decisions if margin >= certain]
            advanced = self._try(state, assumed, trail) or self._retreat(trail, last)
            if advanced is None:
                return
            state = advanced
        self.offer(state, [int(c.ids[0]) for c in state])

    def _detect(self, state: Sequence[Candidates], bias: Sequence[Tensor] | None) -> list[Decision]:
        self.rounds += 1
        local = None if bias is None else [row[c.ids] for row, c in zip(bias, state, strict=True)]
        work, limit = self.effort.work, self.effort.equations
        decisions: list[Decision] = []
        for found in detect(self.seen, self.rows, state, local, self.rng, work=work, limit=limit):
            self.scored += found.scored
            self.flops += found.flops
            self.beliefs, decisions = found.beliefs, found.decisions
            self.offer(state, _tokens(state, decisions))
            if self.explained:
                break
        return decisions

    def offer(self, state: Sequence[Candidates], tokens: Sequence[int]) -> None:
        """Hold a whole assignment, whose tokens are candidates of a state, against the measurements."""
        chosen = [index_of(c, token) for c, token in zip(state, tokens, strict=True)]
        residual = misfit(self.seen, self.rows, state, chosen)
        if residual < self.residual or not self.best:
            self.best, self.residual = list(tokens), residual

    def narrow(self, candidates: list[Candidates]) -> list[Candidates] | None:
        """Deduce, where the row maxima are consistent; None for a contradiction."""
        if not self.sound:
            return candidates
        try:
            return propagate(candidates, self.rows)
        except ContradictionError:
            return None

    def _try(
        self, state: list[Candidates], assumed: Assumption, trail: list[tuple[list[Candidates], Assumption]]
    ) -> list[Candidates] | None:
        trail.append((state, assumed))
        return self.narrow(_fix(state, assumed))

    def _retreat(self, trail: list[tuple[list[Candidates], Assumption]], last: int) -> list[Candidates] | None:
        """Refine the last assumption that can be refined; None when none is left, or no round."""
        while trail and self.rounds < last:
            self.rounds += 1
            state, failed = trail.pop()
            if len(failed) > 1:
                narrowed = self._try(state, failed[:1], trail)
            else:
                position, token = failed[0]
                narrowed = self.narrow([c.without(token) if i == position else c for i, c in enumerate(state)])
            if narrowed is not None:
                return narrowed
        self.exhausted |= self.rounds >= last
        return None


def _fix(state: Sequence[Candidates], assumed: Assumption) -> list[Candidates]:
    fixed = dict(assumed)
    return [c.only(fixed[i]) if i in fixed else c for i, c in enumerate(state)]


def _tokens(state: Sequence[Candidates], decisions: Sequence[Decision]) -> list[int]:
    """The decided token of every open position, and the one of every other."""
    decided = {position: token for _, position, token in decisions}
    return [decided.get(position, int(c.ids[0])) for position, c in enumerate(state)]


def index_of(candidates: Candidates, token: int) -> int:
    """Where a token stands among the candidates."""
    return int((candidates.ids == token).nonzero()[0, 0])
