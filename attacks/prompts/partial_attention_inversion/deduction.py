"""Exact deductions from the row maxima and masses: what no token assignment can contradict.

Beside the linear unmixing of the averages, each reply gives two hard facts about every (step, head) row:

1. no position's score exceeds ``m``, and at least one position's score *equals* it to the last bits;
2. the weights ``exp(s_p - m)`` of all positions sum to ``g``.

The first alone removes most of the vocabulary at every position, and names a token outright wherever one (position,
token) pair explains a row; the second bounds what is left for the others. Propagated to a fixed point, like the domains
of a constraint problem, they usually leave one token a position. Both are ours; the linear view of the same messages is
in the analysis of Confidential Prompting (arXiv 2409.19134, Theorem 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.measurements import REORDERED, Candidates, LayerTable, Measurements

# Rounding tolerances to try before the row maxima are taken for inconsistent: fp32 kernels that differ, then 16-bit
# arithmetic whose last bit differs.
SLACKS = (1.0, 8.0, 64.0, 4096.0)
_MEMORY = 2**30  # bytes of scores that all candidates may take
_FIRST_ROWS = 16  # of each head that the whole vocabulary is screened by


class ContradictionError(Exception):
    """No assignment within the current candidates explains the measurements."""


@dataclass(frozen=True)
class Rows:
    """The measurements flattened over key/value heads, with what rounding can explain.

    Attributes:
        mass: ``g`` ``[rows]``.
        tolerance: of ``s - m`` ``[rows]``.
        named: whether ``m`` is the score of one of the keys (it is not where a vault noises it).
    """

    mass: Tensor
    tolerance: Tensor
    named: bool = True


def screen(
    seen: Measurements,
    table: LayerTable,
    length: int,
    limit: int,
    slack: float = 1.0,
    memory: int = _MEMORY,
    among: Sequence[Tensor | None] | None = None,
) -> tuple[list[Candidates], Rows, Measurements]:
    """Keep the tokens whose score stays under every row's maximum, position by position.

    Every row takes part in the screening; where the scores of what is left outgrow the memory, half of the rows are
    forgotten, as often as it takes.

    Args:
        seen: the measurements.
        table: keys and values of the vocabulary at a position.
        length: prompt length.
        limit: most candidates to keep at one position; those that exceed a maximum least win.
        slack: factor on the rounding tolerance.
        memory: most bytes of scores.
        among: for each position the tokens to look at; None, of one or of all, looks at the whole vocabulary.

    Returns:
        The candidates of each position, the flattened rows, and the measurements of the rows that were kept.
    """
    kept: list[Candidates] = []
    heads, per_head = seen.maximum.shape
    tolerance = torch.zeros_like(seen.maximum)
    order = torch.randperm(per_head, generator=torch.Generator().manual_seed(0))
    for position in range(length):
        asked = None if among is None else among[position]
        if asked is None and table.rough is not None:
            violation, left = roughly_under(seen, table, seen.first + position, slack)
            asked = left if len(left) else violation.topk(min(limit, table.size), largest=False).indices
        ids = torch.arange(table.size) if asked is None else asked
        keys, values = table(seen.first + position, asked)
        tolerance = torch.maximum(tolerance, slack * seen.tolerance(keys))
        violation, best = under(seen, keys, seen.first + position, tolerance)
        if not 0 < len(best) <= limit:
            best = violation.topk(min(limit, len(keys)), largest=False).indices
        ids, keys, values = ids[best], keys[best], values[best]
        excess = seen.at(order).excess(keys, seen.first + position)
        kept.append(Candidates(ids, excess.flatten(0, 1), values))
        while len(order) > 1 and 4 * heads * len(order) * sum(map(len, kept)) > memory:
            half = (torch.arange(heads)[:, None] * len(order) + torch.arange(len(order) // 2)).flatten()
            kept = [Candidates(c.ids, c.excess[half], c.values) for c in kept]
            order = order[: len(order) // 2]
    seen = seen.at(order)
    return kept, Rows(seen.mass.flatten(), tolerance[:, order].flatten(), seen.names_maxima), seen


def under(seen: Measurements, keys: Tensor, position: int, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """How far keys exceed the maxima at most, and which of them exceed none.

    A few rows rule most of the keys out, so that only the rest sees the others.

    Args:
        seen: the measurements.
        keys: ``[tokens, kv_heads, head_dim]``.
        position: their absolute position.
        tolerance: of ``s - m`` ``[kv_heads, rows]``.

    Returns:
        The excess beyond the tolerance, of the rows that were looked at ``[tokens]``, and the indices of those left.
    """
    violation = torch.full((len(keys),), -math.inf)
    left, start, size = torch.arange(len(keys)), 0, _FIRST_ROWS
    while start < len(seen.positions) and len(left):
        rows = torch.arange(start, min(start + size, len(seen.positions)))
        excess = seen.at(rows).excess(keys[left], position) - tolerance[:, rows, None]
        violation[left] = torch.maximum(violation[left], excess.flatten(0, 1).amax(0))
        left = left[violation[left] <= 0]
        start, size = start + size, 4 * size
    return violation, left


def roughly_under(seen: Measurements, table: LayerTable, position: int, slack: float) -> tuple[Tensor, Tensor]:
    """What ``under`` says of the whole vocabulary with rough keys; where there are none, that all tokens are left."""
    if table.rough is None:
        return torch.zeros(table.size), torch.arange(table.size)
    keys = table.rough.keys(position)
    return under(seen, keys, position, REORDERED * slack * seen.tolerance(keys))


def propagate(candidates: Sequence[Candidates], rows: Rows) -> list[Candidates]:
    """Shrink the candidates to a fixed point of both facts.

    Args:
        candidates: possible tokens of each position.
        rows: masses and tolerances.

    Raises:
        ContradictionError: if a row's maximum or mass cannot be explained, or a position has no token left.
    """
    current = list(candidates)
    size = sum(map(len, current))
    while True:
        current = _bound_masses(_match_maxima(current, rows), rows)
        now = sum(map(len, current))
        if now == size:
            return current
        size = now


def _match_maxima(candidates: Sequence[Candidates], rows: Rows) -> list[Candidates]:
    """Rows whose maximum has a single explanation fix that token."""
    if not rows.named:
        return list(candidates)
    hits = [c.excess.abs() <= rows.tolerance[:, None] for c in candidates]
    counts = torch.stack([hit.sum(1) for hit in hits], 1)
    explanations = counts.sum(1)
    if bool((explanations == 0).any()):
        raise ContradictionError
    result = []
    for position, (candidate, hit) in enumerate(zip(candidates, hits, strict=True)):
        facts = (explanations == 1) & (counts[:, position] == 1)
        if len(candidate) > 1 and bool(facts.any()):
            named = hit[facts].any(0)
            if int(named.sum()) > 1:
                raise ContradictionError
            candidate = candidate.keep(named)
        result.append(candidate)
    return result


def _bound_masses(candidates: Sequence[Candidates], rows: Rows) -> list[Candidates]:
    """A token's weight must fit between what the other positions can leave and what they must take of ``g``."""
    weights = [c.excess.exp() for c in candidates]
    low = torch.stack([w.amin(1) for w in weights], 1)
    high = torch.stack([w.amax(1) for w in weights], 1)
    slack = rows.mass * (2 * rows.tolerance + 4 * torch.finfo(torch.float32).eps)
    most = rows.mass + slack - low.sum(1)
    least = rows.mass - slack - high.sum(1)
    if bool((most < 0).any()) or bool((least > 0).any()):
        raise ContradictionError
    result = []
    for position, (candidate, weight) in enumerate(zip(candidates, weights, strict=True)):
        if len(candidate) > 1:
            fits = weight <= (most + low[:, position])[:, None]
            fits &= weight >= (least + high[:, position])[:, None]
            fit = fits.all(0)
            if not bool(fit.any()):
                raise ContradictionError
            if not bool(fit.all()):
                candidate = candidate.keep(fit)
        result.append(candidate)
    return result
