"""Search over token assignments: assume the most certain decisions, deduce, refute, polish."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from attacks.unmixing.certificate import misfit
from attacks.unmixing.deduction import ContradictionError, Rows, propagate
from attacks.unmixing.measurements import Candidates, Measurements
from attacks.unmixing.pursuit import Equations, detect, polish

Assumption = list[tuple[int, int]]
"""(position, token) pairs taken for true together."""

# Decisions at least this share as certain as the most certain one are assumed together with it.
_TOGETHER = 0.5


@dataclass(frozen=True)
class Effort:
    """How hard the solver tries; part of a cell's identity.

    Attributes:
        shortlist: most candidates kept at a position.
        equations: most linear equations drawn for one whitened detection.
        work: multiply-adds that one detection's whitening may take; fewer equations are drawn for more candidates.
        rounds: detections and refutations of one start; the anytime budget.
        sweeps: coordinate and pair sweeps over one complete assignment.
        restarts: further starts, guided by the language-model prior where there is one.
        prior_weight: weight of the prior's log-probability beside the measurements' in a restart.
        ranked: candidates reported at each position.
    """

    shortlist: int = 8192
    equations: int = 2048
    work: float = 1e10
    rounds: int = 48
    sweeps: int = 12
    restarts: int = 2
    prior_weight: float = 1.0
    ranked: int = 10


@dataclass
class Search:
    """One prompt's search: the screened candidates, the best assignment so far, and what was spent.

    Attributes:
        seen: the measurements.
        rows: their masses and tolerances.
        root: every position's candidates after the screen.
        sound: whether the row maxima are consistent, so that deductions may be drawn.
        effort: the budget.
        rng: draws equations.
        best: index into ``root`` of the best assignment so far.
        residual: its misfit, in units of rounding.
        scored: (position, token) pairs scored.
        rounds: detections and refutations.
        exhausted: whether a start ran out of rounds.
    """

    seen: Measurements
    rows: Rows
    root: list[Candidates]
    sound: bool
    effort: Effort
    rng: np.random.Generator
    best: list[int] = field(default_factory=list)
    residual: float = float("inf")
    scored: int = 0
    rounds: int = 0
    exhausted: bool = False

    @property
    def explained(self) -> bool:
        """Whether rounding explains what the best assignment leaves."""
        return self.residual <= 1

    def start(self, state: list[Candidates], bias: Sequence[Tensor] | None) -> None:
        """Depth-first search from a state, most certain decisions first, until explained or out of rounds.

        Every assumption is propagated. A refuted batch is retried with its most certain member alone; a refuted single
        assumption removes that token (sound, as far as the tolerances are), and then the one before it.

        Args:
            state: possible tokens of each position, deduced.
            bias: log prior ``[vocabulary]`` of each position, or None.
        """
        self._descend(state, bias)
        if not self.best:  # refuted throughout: the measurements fit no prompt, but a guess is owed
            self._complete(_fix(state, [(p, token) for _, p, token in self._detect(state, bias)]))

    def _descend(self, state: list[Candidates], bias: Sequence[Tensor] | None) -> None:
        trail: list[tuple[list[Candidates], Assumption]] = []
        last = self.rounds + self.effort.rounds
        while True:
            if all(len(c) == 1 for c in state):
                self._complete(state)
                if self.explained or not self.sound:
                    return
                retreat = self._retreat(trail, last)
            else:
                decisions = self._detect(state, bias)
                if self.rounds >= last:
                    self.exhausted = True
                    self._complete(_fix(state, [(p, token) for _, p, token in decisions]))
                    return
                certain = decisions[0][0] * _TOGETHER
                assumed = [(p, token) for margin, p, token in decisions if margin >= certain]
                retreat = self._try(state, assumed, trail) or self._retreat(trail, last)
            if retreat is None:
                return
            state = retreat

    def equations(self, candidates: Sequence[Candidates]) -> Equations:
        """As many equations as the work allows for these candidates."""
        open_columns = sum(len(c) for c in candidates if len(c) > 1)
        affordable = int((self.effort.work / max(1, open_columns)) ** 0.5)
        return Equations.sample(self.seen, self.rows, max(64, min(self.effort.equations, affordable)), self.rng)

    def _detect(self, state: Sequence[Candidates], bias: Sequence[Tensor] | None) -> list[tuple[float, int, int]]:
        self.rounds += 1
        self.scored += sum(len(c) for c in state if len(c) > 1)
        local = None if bias is None else [row[c.ids] for row, c in zip(bias, state, strict=True)]
        return detect(self.equations(state), state, local, self.rng)

    def _complete(self, settled: Sequence[Candidates]) -> None:
        """Offer a settled assignment, as it is, then polished over everything the screen let through."""
        chosen = [_index(c, int(leaf.ids[0])) for c, leaf in zip(self.root, settled, strict=True)]
        self._offer(chosen)
        if not self.explained:
            self.scored += sum(map(len, self.root))
            self._offer(polish(self.equations(self.root), self.root, chosen, self.rng, self.effort.sweeps))

    def _offer(self, chosen: list[int]) -> None:
        residual = misfit(self.seen, self.rows, self.root, chosen)
        if residual < self.residual or not self.best:
            self.best, self.residual = chosen, residual

    def _narrow(self, candidates: list[Candidates]) -> list[Candidates] | None:
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
        return self._narrow(_fix(state, assumed))

    def _retreat(self, trail: list[tuple[list[Candidates], Assumption]], last: int) -> list[Candidates] | None:
        """Refine the last assumption that can be refined; None when none is left, or no round."""
        while trail and self.rounds < last:
            self.rounds += 1
            state, failed = trail.pop()
            if len(failed) > 1:
                narrowed = self._try(state, failed[:1], trail)
            else:
                position, token = failed[0]
                narrowed = self._narrow([c.without(token) if i == position else c for i, c in enumerate(state)])
            if narrowed is not None:
                return narrowed
        self.exhausted = bool(trail)
        return None


def _fix(state: Sequence[Candidates], assumed: Assumption) -> list[Candidates]:
    fixed = dict(assumed)
    return [c.only(fixed[i]) if i in fixed else c for i, c in enumerate(state)]


def _index(candidates: Candidates, token: int) -> int:
    return int((candidates.ids == token).nonzero()[0, 0])
