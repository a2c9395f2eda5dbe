"""The attack's proof: does the guess reproduce every triple to the last bits, and does nothing else?"""

import math
from collections.abc import Container, Sequence
from itertools import combinations

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.deduction import Rows
from attacks.prompts.partial_attention_inversion.measurements import (
    SIGMAS,
    UNDISTURBED,
    Candidates,
    LayerTable,
    Measurements,
)

_EPS = torch.finfo(torch.float32).eps
_GRAIN = 1e-5  # of a squared length, in fp32
_BLOCK = 1024  # tokens compared at once
_FEW = 4  # rows of each head that refute most exchanges


def misfit(seen: Measurements, rows: Rows, candidates: Sequence[Candidates], chosen: Sequence[int]) -> float:
    """Largest error of the replayed ``(m, g, A)``, in units of what rounding explains (at most one: explained).

    Args:
        seen: the measurements.
        rows: masses and tolerances.
        candidates: tokens of each position.
        chosen: index of the chosen candidate of each position.
    """
    heads, per_head, _ = seen.average.shape
    excess = torch.stack([c.excess[:, i] for c, i in zip(candidates, chosen, strict=True)], 1).double()
    values = torch.stack([c.values[i] for c, i in zip(candidates, chosen, strict=True)], 1).double()
    weights = excess.exp()
    mass = weights.sum(1)
    average = torch.bmm(weights.view(heads, per_head, -1), values.to(weights.dtype)) / mass.view(heads, per_head, 1)
    slack_mass, slack_average = _slacks(seen, rows, values.abs().amax((1, 2)))
    errors = (
        excess.amax(1).abs() / rows.tolerance if rows.named else torch.zeros(1),
        (mass / rows.mass).log().abs() / (slack_mass / rows.mass),
        (average - seen.average).abs() / slack_average,
    )
    return max(float(error.max()) for error in errors)


def indistinguishable(
    seen: Measurements, rows: Rows, table: LayerTable, candidates: Sequence[Candidates], chosen: Sequence[int]
) -> dict[int, list[int]]:
    """Tokens of the whole vocabulary that could replace the chosen one of a position without being seen above rounding.

    Args:
        seen: the measurements.
        rows: masses and tolerances.
        table: keys and values of the vocabulary.
        candidates: tokens of each position.
        chosen: index of the chosen candidate of each position.

    Returns:
        The other tokens, by position.
    """
    largest = torch.stack([c.values[i] for c, i in zip(candidates, chosen, strict=True)]).abs().amax((0, 2))
    slacks = _slacks(seen, rows, largest)
    normal = torch.stack([c.excess[:, i] for c, i in zip(candidates, chosen, strict=True)]).double().logsumexp(0)
    found: dict[int, list[int]] = {}
    alike = table.values(0) if table.alike else None
    for offset, (candidate, index) in enumerate(zip(candidates, chosen, strict=True)):
        own = candidate.keep(torch.tensor([index]))
        position = seen.first + offset
        others = _parallel(seen, normal, table.values(position) if alike is None else alike, own, slacks[1])
        twins: list[int] = []
        for tokens in torch.split(others[others != own.ids], _BLOCK):
            keys, values = table(position, tokens)
            other = Candidates(tokens, seen.excess(keys, position).flatten(0, 1), values)
            twins += tokens[_same(seen, normal, own, other, slacks)].tolist()
        if twins:
            found[offset] = twins
    return found


def exchanged(
    seen: Measurements, rows: Rows, table: LayerTable, ids: Sequence[int], known: Container[int] = ()
) -> list[list[int]]:
    """Guesses that two tokens change places in, of those that rounding and noise explain as well.

    Scores that are exact tell the places; where they are noised, averages alone do, and 16-bit ones may not.

    Args:
        seen: the measurements.
        rows: masses and tolerances.
        table: keys and values of the vocabulary.
        ids: the guess.
        known: places whose tokens are public.

    Returns:
        The other guesses; none where nothing is added to the replies.
    """
    if seen.disturbance == UNDISTURBED:
        return []
    few = torch.arange(0, len(seen.positions), max(1, len(seen.positions) // _FEW))
    part = _everywhere(seen, rows, table, ids, few)
    whole = None
    found = []
    for one, other in combinations((place for place in range(len(ids)) if place not in known), 2):
        if ids[one] == ids[other]:
            continue
        places = list(range(len(ids)))
        places[one], places[other] = other, one
        if misfit(*part, places) > 1:
            continue
        whole = whole or _everywhere(seen, rows, table, ids, torch.arange(len(seen.positions)))
        if misfit(*whole, places) <= 1:
            found.append([ids[place] for place in places])
    return found


def _everywhere(
    seen: Measurements, rows: Rows, table: LayerTable, ids: Sequence[int], which: Tensor
) -> tuple[Measurements, Rows, list[Candidates]]:
    """Some rows of every head, and all tokens of a guess as candidates of each of its positions."""
    part, tokens, candidates = seen.at(which), torch.tensor(ids), []
    for position in range(seen.first, seen.first + len(ids)):
        keys, values = table(position, tokens)
        candidates.append(Candidates(tokens, part.excess(keys, position).flatten(0, 1), values))
    mass, tolerance = (x.view(seen.maximum.shape)[:, which].flatten() for x in (rows.mass, rows.tolerance))
    return part, Rows(mass, tolerance, rows.named), candidates


def _centre(seen: Measurements) -> Tensor:
    """What a row's average is compared with as a token changes ``[kv_heads, rows, head_dim]``.

    Where ``g`` is known the sum of ``exp(s) v`` is; where it is noised, only how the average moves.
    """
    return torch.zeros_like(seen.average) if seen.names_maxima else seen.average


def _parallel(seen: Measurements, normal: Tensor, values: Tensor, own: Candidates, slack: Tensor) -> Tensor:
    """Tokens whose values point so nearly the way of a chosen one's that some weight could make them the same.

    The head and row where the chosen one weighs most, beside what rounding explains, decide.

    Args:
        seen: the measurements.
        normal: log normaliser of the chosen tokens' ``s - m`` ``[rows]``.
        values: of the whole vocabulary ``[tokens, kv_heads, head_dim]``.
        own: the chosen token.
        slack: what rounding explains of ``A`` ``[kv_heads, rows, head_dim]``.
    """
    share = (own.excess[:, 0] - normal).exp().view(seen.maximum.shape)
    centre = _centre(seen)
    rays = own.values[0][:, None] - centre
    lengths = torch.linalg.vector_norm(rays, dim=-1)
    allowed = 2 * torch.linalg.vector_norm(slack, dim=-1)
    over = share * lengths - allowed
    tangents = torch.where(over > 0, allowed / over, math.inf)
    head, row = divmod(int(tangents.argmin()), tangents.shape[1])
    tangent = float(tangents[head, row])
    if not tangent < 1:
        return torch.arange(len(values))
    others = values[:, head] - centre[head, row]
    along = others @ (rays[head, row] / lengths[head, row])
    whole = others.square().sum(-1)
    least = whole * (1 - _GRAIN - tangent**2)  # squared: cos^2 is at least 1 - tan^2
    possible: Tensor = ((along > 0) & (along.square() >= least)).nonzero()[:, 0]
    return possible


def _same(
    seen: Measurements, normal: Tensor, own: Candidates, other: Candidates, slacks: tuple[Tensor, Tensor]
) -> Tensor:
    """Which of some tokens cannot be told from a chosen one: by the masses, then by the averages ``[tokens]``."""
    heads, per_head, _ = seen.average.shape
    share, shares = ((c.excess.double() - normal[:, None]).exp() for c in (own, other))
    same = torch.ones(len(other), dtype=torch.bool)
    if seen.names_maxima:
        same = ((shares - share).abs() <= 2 * (slacks[0] * (-normal).exp())[:, None]).all(0)
    centre = _centre(seen)
    mine = share.view(heads, per_head, 1) * (own.values.transpose(0, 1) - centre)
    for index in same.nonzero()[:, 0].tolist() if bool(share.any()) else ():
        moved = shares[:, index].view(heads, per_head, 1) * (other.values[index][:, None] - centre)
        same[index] = bool(((moved - mine).abs() <= 2 * slacks[1]).all())
    return same


def _slacks(seen: Measurements, rows: Rows, largest: Tensor) -> tuple[Tensor, Tensor]:
    """What rounding explains of ``g`` ``[rows]`` and ``A`` ``[kv_heads, rows, head_dim]``; ``largest`` is max |v|."""
    relative = 2 * rows.tolerance + 8 * _EPS
    shape = seen.maximum.shape
    of_scores = relative - 2 * SIGMAS * seen.disturbance.log_weight  # noise on l does not touch the averages
    error = 2 * of_scores.view(*shape, 1) + seen.value_precision
    average = seen.precision * seen.average.abs() + error * largest.view(-1, 1, 1) + SIGMAS * seen.disturbance.average
    return rows.mass * relative, average
