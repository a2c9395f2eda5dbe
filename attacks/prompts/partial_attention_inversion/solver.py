"""Attention unmixing from end to end: screen, deduce, search, certify."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.certificate import exchanged, indistinguishable
from attacks.prompts.partial_attention_inversion.deduction import SLACKS, ContradictionError, Rows, propagate, screen
from attacks.prompts.partial_attention_inversion.measurements import Candidates, LayerTable, Measurements
from attacks.prompts.partial_attention_inversion.naming import named
from attacks.prompts.partial_attention_inversion.pursuit import Equations
from attacks.prompts.partial_attention_inversion.search import Effort, Search, index_of
from attacks.prompts.partial_attention_inversion.spans import Spanned, span
from attacks.prompts.partial_attention_inversion.stages import Stages

Prior = Callable[[Sequence[int]], Tensor]
"""Token ids -> log-probabilities ``[positions, vocabulary]`` of each position's token given those before it."""

_RANKING = 512  # equations that rank the alternatives
_BLURRED = 2.0**-8  # relative rounding of averages from which on what is left of peeled rows loses true tokens (bf16)


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes:
        ids: one token id per position.
        ranked: candidates of each position, best first.
        explained: whether the ids reproduce the measurements.
        doubts: further tokens at doubtful positions, most doubtful first: where the measurements are explained those
            that would explain them as well, else the most likely ones.
        exchanges: where the measurements are explained, the ids with two tokens in each other's places, as far as that
            would explain them as well.
        residual: largest error in units of rounding (at most one: explained).
        deduced: positions that exact deduction alone settled.
        candidates: (position, token) pairs scored.
        rounds: detections and refutations used.
        flops: floating-point operations of screening and detections.
        exhausted: whether the budget ended the search.
        stages: what named how many tokens, and how long it took.
    """

    ids: tuple[int, ...]
    ranked: tuple[tuple[int, ...], ...]
    explained: bool
    doubts: dict[int, tuple[int, ...]]
    exchanges: list[list[int]]
    residual: float
    deduced: int
    candidates: int
    rounds: int
    flops: float
    exhausted: bool
    stages: Stages

    @property
    def certified(self) -> bool:
        """Whether the ids, and no single replacement or exchange, reproduce the measurements."""
        return self.explained and not self.doubts and not self.exchanges


def solve(
    seen: Measurements,
    table: LayerTable,
    length: int,
    rng: np.random.Generator,
    *,
    prior: Prior | None = None,
    effort: Effort | None = None,
    read: Spanned | None = None,
    known: Mapping[int, int] = MappingProxyType({}),
) -> Solution:
    """Recover a prompt from the partial attention of its decode steps.

    The row space is asked first, then the row maxima, then the row space of what they leave; the search gets the rest.

    Args:
        seen: layer-0 queries and triples.
        table: layer-0 keys and values of the vocabulary at each position.
        length: prompt length.
        rng: draws equations and covariance samples.
        prior: language model that guides restarts; None leaves it out.
        effort: how hard to try.
        read: what the row space says, where that is known already.
        known: tokens of positions that are public.

    Returns:
        The best assignment found, with its certificate.
    """
    effort, stages, sure, looked = effort or Effort(), Stages(), dict(known), 0
    with stages.timed("row_space"):
        found = read or _spanned(seen, table, length, known)
    if found is None and seen.names_maxima:
        with stages.timed("deduction"):
            sure, looked = named(seen, table, length, known), table.size * (length - len(known))
        with stages.timed("peeling"):
            found = _peeled(seen, table, length, sure) if len(sure) > len(known) else None
    if found is not None:
        with stages.timed("row_space"):
            offered = _offered(seen, table, found, effort, rng, looked)
        if offered.search.explained:
            stage = "row_space"
            if looked:
                stages.named("deduction", len(sure) - len(known))
                stage = "peeling"
            stages.named(stage, length - len(sure))
            return _solution(offered, table, stages, effort, known)
    best: _Attempt | None = None
    told = [torch.tensor([sure[place]]) if place in sure else None for place in range(length)]
    lossy = bool(looked) and seen.precision >= _BLURRED
    for among in (told,) if found is None or lossy else (found.shortlists, told):
        attempt = _attempt(seen, table, length, among, prior, effort, rng, stages)
        if best is None or attempt.search.residual < best.search.residual:
            best = attempt
        if best.search.explained:
            break
    assert best is not None
    stages.tokens["deduction"] -= len(known)  # their candidates were one each before anything was deduced
    return _solution(best, table, stages, effort, known)


def _spanned(seen: Measurements, table: LayerTable, length: int, known: Mapping[int, int]) -> Spanned | None:
    """What the row space says; where the rows span all they can, once what is known has been taken out of them."""
    found = span(seen, table, length, {})
    if found is None:
        return _peeled(seen, table, length, known) if known and seen.names_maxima else None
    return _told(found, range(length), length, known)


def _peeled(seen: Measurements, table: LayerTable, length: int, known: Mapping[int, int]) -> Spanned | None:
    """What the row space says of the other places, once the known ones have been taken out of the rows."""
    places = [place for place in range(length) if place not in known]
    found = span(seen, table, length, dict(known)) if places else Spanned([], [])
    return found and _told(found, places, length, known)


def _told(found: Spanned, places: Sequence[int], length: int, known: Mapping[int, int]) -> Spanned:
    """What was found at some places, and what is known, as of all places."""
    said = dict(zip(places, zip(found.ids, found.shortlists, strict=True), strict=True))
    said |= {place: (token, torch.tensor([token])) for place, token in known.items()}
    return Spanned([said[place][0] for place in range(length)], [said[place][1] for place in range(length)])


@dataclass(frozen=True)
class _Attempt:
    """A search over some candidates: those of the start, and what deduction left of them."""

    search: Search
    root: list[Candidates]
    deduced: int = 0


def _offered(
    seen: Measurements, table: LayerTable, found: Spanned, effort: Effort, rng: np.random.Generator, looked: int
) -> _Attempt:
    """What the row space says, held against the measurements; ``looked`` pairs were screened before."""
    among = [_first(token, ids) for token, ids in zip(found.ids, found.shortlists, strict=True)]
    root, rows, kept = screen(seen, table, len(among), effort.shortlist, among=among)
    scored = looked + sum(map(len, among))
    search = Search(kept, rows, True, effort, rng, scored=scored, flops=_screening(seen, looked))
    if all(bool((c.ids == token).any()) for c, token in zip(root, found.ids, strict=True)):
        search.offer(root, found.ids)
    return _Attempt(search, root)


def _screening(seen: Measurements, pairs: int) -> float:
    """Floating-point operations of scoring (position, token) pairs in every row."""
    return 2.0 * pairs * seen.average.shape[-1] * seen.maximum.numel()


def _first(token: int, ids: Tensor) -> Tensor:
    """Ids with one token before the others."""
    return torch.cat([torch.tensor([token]), ids[ids != token]])


def _attempt(
    seen: Measurements,
    table: LayerTable,
    length: int,
    among: Sequence[Tensor | None],
    prior: Prior | None,
    effort: Effort,
    rng: np.random.Generator,
    stages: Stages,
) -> _Attempt:
    """Deduce and search among some tokens of each position, or all where they are None."""
    with stages.timed("deduction"):
        root, state, rows, kept, sound = _deduce(seen, table, length, effort.shortlist, among)
    state = [_blind(c) for c in state]
    deduced = sum(len(c) == 1 for c in state)
    scored = sum(table.size if ids is None else len(ids) for ids in among)
    search = Search(kept, rows, sound, effort, rng, scored=scored, flops=_screening(seen, scored))
    settled = _peeled_first(search, root, state, seen, table, stages) if sound and not search.explained else deduced
    peeled = settled - deduced if search.explained else 0
    if not search.explained:
        with stages.timed("pursuit"):
            _pursue(search, state, prior, effort)
    stages.tokens = {"deduction": deduced, "peeling": peeled, "pursuit": length - deduced - peeled}
    return _Attempt(search, root, deduced)


def _peeled_first(
    search: Search,
    root: list[Candidates],
    state: list[Candidates],
    seen: Measurements,
    table: LayerTable,
    stages: Stages,
) -> int:
    """Peel, and start once among the few that this leaves, which may lack a true token; how many places it settled."""
    with stages.timed("peeling"):
        fewer = _peel(search, root, state, seen, table)
    if search.explained:
        return len(state)
    if seen.precision < _BLURRED and fewer is not state:
        with stages.timed("pursuit"):
            search.start(fewer, None)
    return sum(len(c) == 1 for c in fewer)


def _peel(
    search: Search, root: list[Candidates], state: list[Candidates], seen: Measurements, table: LayerTable
) -> list[Candidates]:
    """Ask the row space for what known positions leave, as long as that makes further ones known.

    Args:
        search: is offered what the row space says.
        root: tokens that the maxima allow.
        state: what deduction left of them.
        seen: the measurements, all rows.
        table: keys and values of the vocabulary.

    Returns:
        The state with what was found to be impossible left out.
    """
    known = {p: int(c.ids[0]) for p, c in enumerate(state) if len(c) == 1}
    while 0 < len(known) < len(state):
        found = span(seen, table, len(state), known)
        if found is None:
            return state
        places = [place for place in range(len(state)) if place not in known]
        token = known | dict(zip(places, found.ids, strict=True))
        ids = [token[place] for place in range(len(state))]
        if all(bool((c.ids == own).any()) for c, own in zip(root, ids, strict=True)):
            search.offer(root, ids)
        shortlists = dict(zip(places, found.shortlists, strict=True))
        fewer = search.narrow([_among(c, shortlists.get(place)) for place, c in enumerate(state)])
        if search.explained or fewer is None:
            return state
        state, before = fewer, len(known)
        known = {p: int(c.ids[0]) for p, c in enumerate(state) if len(c) == 1}
        if len(known) == before:
            return state
    return state


def _among(candidates: Candidates, ids: Tensor | None) -> Candidates:
    """Those of some candidates that are among ``ids``; all of them where that leaves none, or none are given."""
    kept = torch.ones(0, dtype=torch.bool) if ids is None else torch.isin(candidates.ids, ids)
    return candidates.keep(kept) if bool(kept.any()) else candidates


def _pursue(search: Search, state: list[Candidates], prior: Prior | None, effort: Effort) -> None:
    """Search from a state, again with the language model's bias while the measurements stay unexplained."""
    search.start(state, None)
    for _ in range(effort.restarts):
        if search.explained:
            break
        search.start(state, None if prior is None else list(effort.prior_weight * prior(search.best)))


def _solution(
    attempt: _Attempt, table: LayerTable, stages: Stages, effort: Effort, known: Mapping[int, int]
) -> Solution:
    search, root = attempt.search, attempt.root
    chosen = [index_of(c, token) for c, token in zip(root, search.best, strict=True)]
    equations = Equations.sample(search.seen, search.rows, _RANKING, search.rng)
    doubts = _twins(search, table, root, chosen) if search.explained else _doubts(search, effort.ranked)
    return Solution(
        ids=tuple(search.best),
        ranked=_rank(equations, root, chosen, effort.ranked),
        explained=search.explained,
        doubts={place: tokens for place, tokens in doubts.items() if place not in known},
        exchanges=exchanged(search.seen, search.rows, table, search.best, known) if search.explained else [],
        residual=search.residual,
        deduced=attempt.deduced,
        candidates=search.scored,
        rounds=search.rounds,
        flops=search.flops,
        exhausted=search.exhausted and not search.explained,
        stages=stages,
    )


def _deduce(
    seen: Measurements, table: LayerTable, length: int, limit: int, among: Sequence[Tensor | None]
) -> tuple[list[Candidates], list[Candidates], Rows, Measurements, bool]:
    """Screen and propagate under growing tolerance; the last value says whether the deductions hold.

    They do not where the row maxima contradict each other, nor where a shortlist had to be cut.
    """
    for slack in SLACKS:
        root, rows, kept = screen(seen, table, length, limit, slack, among=among)
        if max(map(len, root)) == limit:
            break
        try:
            return root, propagate(root, rows), rows, kept, True
        except ContradictionError:
            continue
    root, rows, kept = screen(seen, table, length, limit, among=among)
    return root, root, rows, kept, False


def _twins(
    search: Search, table: LayerTable, root: Sequence[Candidates], chosen: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Tokens that explain the measurements as well as the chosen ones; the fewer at a position, the earlier."""
    twins = indistinguishable(search.seen, search.rows, table, root, chosen)
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
