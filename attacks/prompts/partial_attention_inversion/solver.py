"""Attention unmixing from end to end: screen, deduce, search, certify."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.certificate import indistinguishable
from attacks.prompts.partial_attention_inversion.deduction import ContradictionError, Rows, propagate, screen
from attacks.prompts.partial_attention_inversion.measurements import Candidates, Measurements, Table
from attacks.prompts.partial_attention_inversion.pursuit import Equations
from attacks.prompts.partial_attention_inversion.search import Effort, Search, index_of

Prior = Callable[[Sequence[int]], Tensor]
"""Token ids -> log-probabilities ``[positions, vocabulary]`` of each position's token given those before it."""

# Rounding tolerances to try before the row maxima are taken for inconsistent: fp32 kernels that differ, then 16-bit
# arithmetic whose last bit differs.
_SLACKS = (1.0, 8.0, 64.0, 4096.0)
_RANKING = 512  # equations that rank the alternatives


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes:
        ids: one token id per position.
        ranked: candidates of each position, best first.
        explained: whether the ids reproduce the measurements.
        doubts: further tokens at doubtful positions, most doubtful first: where the measurements are explained those
            that would explain them as well, else the most likely ones.
        residual: largest error in units of rounding (at most one: explained).
        deduced: positions that exact deduction alone settled.
        candidates: (position, token) pairs scored.
        rounds: detections and refutations used.
        flops: floating-point operations of screening and detections.
        exhausted: whether the budget ended the search.
    """

    ids: tuple[int, ...]
    ranked: tuple[tuple[int, ...], ...]
    explained: bool
    doubts: dict[int, tuple[int, ...]]
    residual: float
    deduced: int
    candidates: int
    rounds: int
    flops: float
    exhausted: bool

    @property
    def certified(self) -> bool:
        """Whether the ids, and no single replacement, reproduce the measurements."""
        return self.explained and not self.doubts


def solve(
    seen: Measurements,
    table: Table,
    length: int,
    rng: np.random.Generator,
    *,
    prior: Prior | None = None,
    effort: Effort | None = None,
) -> Solution:
    """Recover a prompt from the partial attention of its decode steps.

    Args:
        seen: layer-0 queries and triples.
        table: layer-0 keys and values of the vocabulary at each position.
        length: prompt length.
        rng: draws equations and covariance samples.
        prior: language model that guides restarts; None leaves it out.
        effort: how hard to try.

    Returns:
        The best assignment found, with its certificate.
    """
    effort = effort or Effort()
    vocabulary = table(seen.first)[0].shape
    screening = 2.0 * length * vocabulary[0] * vocabulary[2] * seen.maximum.numel()
    root, state, rows, seen, sound = _deduce(seen, table, length, effort.shortlist)
    state = [_blind(c) for c in state]
    search = Search(seen, rows, sound, effort, rng, scored=length * vocabulary[0], flops=screening)
    search.start(state, None)
    for _ in range(effort.restarts):
        if search.explained:
            break
        bias = None
        if prior is not None:
            bias = list(effort.prior_weight * prior(search.best))
        search.start(state, bias)
    chosen = [index_of(c, token) for c, token in zip(root, search.best, strict=True)]
    return Solution(
        ids=tuple(search.best),
        ranked=_rank(Equations.sample(seen, rows, _RANKING, rng), root, chosen, effort.ranked),
        explained=search.explained,
        doubts=_twins(seen, rows, root, chosen) if search.explained else _doubts(search, effort.ranked),
        residual=search.residual,
        deduced=sum(len(c) == 1 for c in state),
        candidates=search.scored,
        rounds=search.rounds,
        flops=search.flops,
        exhausted=search.exhausted and not search.explained,
    )


def _deduce(
    seen: Measurements, table: Table, length: int, limit: int
) -> tuple[list[Candidates], list[Candidates], Rows, Measurements, bool]:
    """Screen and propagate under growing tolerance; the last value says whether the deductions hold.

    They do not where the row maxima contradict each other, nor where a shortlist had to be cut.
    """
    for slack in _SLACKS:
        root, rows, kept = screen(seen, table, length, limit, slack)
        if max(map(len, root)) == limit:
            break
        try:
            return root, propagate(root, rows), rows, kept, True
        except ContradictionError:
            continue
    root, rows, kept = screen(seen, table, length, limit)
    return root, root, rows, kept, False


def _twins(
    seen: Measurements, rows: Rows, root: Sequence[Candidates], chosen: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Tokens that explain the measurements as well as the chosen ones; the fewer at a position, the earlier."""
    twins = indistinguishable(seen, rows, root, chosen)
    return {p: tuple(tokens) for p, tokens in sorted(twins.items(), key=lambda item: len(item[1]))}


def _doubts(search: Search, top: int) -> dict[int, tuple[int, ...]]:
    """The most likely tokens of the positions that the last detection left open."""
    open_ones = [(float(b.weights.max()), p, b) for p, b in enumerate(search.beliefs) if not b.known]
    doubts = {}
    for _, position, belief in sorted(open_ones, key=lambda item: item[:2]):
        best = belief.weights.topk(min(top, len(belief.candidates))).indices
        doubts[position] = tuple(belief.candidates.ids[best].tolist())
    return doubts


def _blind(candidates: Candidates) -> Candidates:
    """Only the first candidate of a position that no query sees: nothing tells them apart here."""
    unseen = bool((candidates.excess == -math.inf).all())
    return candidates.keep(torch.zeros(1, dtype=torch.long)) if unseen else candidates


def _rank(
    equations: Equations, root: Sequence[Candidates], chosen: Sequence[int], top: int
) -> tuple[tuple[int, ...], ...]:
    """Candidates of each position by the residual they would leave with all others as chosen."""
    taken = [equations.columns(c.keep(torch.tensor([i])))[:, 0] for c, i in zip(root, chosen, strict=True)]
    residual = equations.target - torch.stack(taken).sum(0)
    ranked = []
    for candidate, own, index in zip(root, taken, chosen, strict=True):
        energy = ((residual + own)[:, None] - equations.columns(candidate)).square().sum(0)
        energy[index] = -1  # the choice itself stands first, whatever rounding says
        ranked.append(tuple(candidate.ids[energy.topk(min(top, len(candidate)), largest=False).indices].tolist()))
    return tuple(ranked)
