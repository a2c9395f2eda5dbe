"""Unmerging: the prompt's attention out of rows that the vault has merged with the provider's own.

A merged row is ``w A + (1 - w) O`` with the provider's own attention ``O``, which it sent itself, and a weight ``w``
that it is not told. Beside the space that the rows of ``O`` span, merged rows lie in the span of the prompt's values
like any other: membership works in the quotient, while the prompt's distinct values and the own ones together number
fewer than a head has dimensions. The tokens found give every row's share of each value; an own value's share is
``1 - w`` times its known softmax weight, and more where the prompt holds the token too, so the least ratio over them
names ``1 - w``, and with it ``A`` and ``l``.

Whoever claims an own attention without weight is sent ``A`` itself: such rows need no quotient, and beside the honest
row of the same query they name ``w``.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.measurements import Disturbance, LayerTable, Measurements
from attacks.prompts.partial_attention_inversion.order import assign
from attacks.prompts.partial_attention_inversion.row_space import Members, RowSpace, deviation, members
from attacks.prompts.partial_attention_inversion.spans import Spanned

WEIGHTLESS = -1e30
"""Log weight of an own attention that counts for nothing, as an active provider sends it."""
_SHARES = (1.0, 0.75, 0.5, 0.35, 0.25)  # of the rows that the quotient is tried with: fewer rows, fewer own values
_HEAVY = 0.1  # of a row's largest own weight: own values lighter than that say nothing of the ratio
_CLEAR = 1e-3  # least share of either side in a row that is used
_RELATIVE = 1e-5  # error of a weight that fp32 scores explain
_SIGMAS = 6.0
_OFTEN = 0.25  # of the rows that see an own token: in so many its share is larger, where the prompt holds it too


@dataclass(frozen=True)
class Own:
    """The provider's own attention beside merged measurements.

    Attributes:
        average: ``O`` of each row ``[kv_heads, rows, head_dim]``.
        tokens: generated tokens, the one that the first step processed first ``[steps]``.
        first: absolute position of the first of them.
    """

    average: Tensor
    tokens: Tensor
    first: int


@dataclass(frozen=True)
class Unmerged:
    """What a provider who merges itself would have measured, and what was read on the way.

    Attributes:
        seen: the measurements.
        spanned: what the quotient says of the positions; None where it was not needed.
    """

    seen: Measurements
    spanned: Spanned | None = None


def unmerged(seen: Measurements, own: Own, table: LayerTable, length: int) -> Unmerged | None:
    """Take the provider's own attention out of merged rows; None where the quotient is full.

    Args:
        seen: merged rows in place of ``A``, the own log weight in place of ``m``, ``g`` of one.
        own: what was sent to be merged.
        table: keys and values of the vocabulary.
        length: of the prompt, public tokens left out.
    """
    idle = seen.maximum.amax(0) <= WEIGHTLESS / 2
    positions = [seen.first + place for place in range(length)]
    if bool(idle.any()):
        return _beside_weightless(seen, own, idle)
    best: tuple[float, Tensor, Members] | None = None
    for share in _SHARES:
        rows = torch.arange(max(1, int(share * len(seen.positions))))
        part = seen.at(rows)
        found = members(RowSpace.of(part.average, deviation(part), own.average[:, rows]), table, positions)
        if found is None:
            continue
        gap = _gap(found, found.rank if table.alike else 1)
        if best is None or gap > best[0]:
            best = gap, rows, found
    if best is None:
        return None
    _, rows, found = best
    part = seen.at(rows)
    return _resolved(part, own.average[:, rows], found, _own_values(own, part, table), table, positions)


def _gap(found: Members, last: int) -> float:
    """How far the first token that is out stands from the ``last`` one that is in, at the worst position."""
    return min(float(away[last] - away[last - 1]) for away in found.distances)


@dataclass(frozen=True)
class _OwnValues:
    """Own values that differ ``[kv_heads, columns, head_dim]``, their tokens, and their weights in each row
    ``[kv_heads, rows, columns]``."""  # noqa: D205, D209

    tokens: Tensor
    values: Tensor
    weights: Tensor


def _own_values(own: Own, seen: Measurements, table: LayerTable) -> _OwnValues:
    """What the own attention of some rows is made of, computed again from the generated tokens."""
    last = int(seen.positions.max())
    tokens = own.tokens[: last - own.first + 1]
    both = [table(own.first + index, token[None]) for index, token in enumerate(tokens)]
    scores = [seen.excess(keys, own.first + index)[..., 0] for index, (keys, _) in enumerate(both)]
    where = own.first + torch.arange(len(tokens))
    logits = torch.stack(scores, -1).double().masked_fill(where > seen.positions[:, None], -torch.inf)
    weights = logits.softmax(-1)
    values = torch.cat([value for _, value in both]).transpose(0, 1).double()
    if not table.alike:
        return _OwnValues(tokens, values, weights)
    distinct, index = torch.unique(tokens, return_inverse=True)
    summed = torch.zeros(*weights.shape[:2], len(distinct), dtype=weights.dtype).index_add_(2, index, weights)
    firsts = torch.stack([(index == k).nonzero()[0, 0] for k in range(len(distinct))])
    return _OwnValues(distinct, values[:, firsts], summed)


def _resolved(
    seen: Measurements, own: Tensor, found: Members, columns: _OwnValues, table: LayerTable, positions: list[int]
) -> Unmerged:
    """Take the own part out of each row, given what was found of the prompt, and read the positions."""
    values = table.values(0)[found.tokens]
    if not table.alike:
        values = torch.cat([table(p, ids[:1])[1] for p, ids in zip(positions, found.ids, strict=True)])
    ratio, error = _ratios(seen, values.transpose(0, 1).double(), columns)
    rest, least = ratio.min(-1)
    of_least = error.gather(2, least[..., None])
    # an own token that the prompt holds too has a larger ratio: two that agree on the least are two it does not hold
    more = ratio - rest[..., None] > _SIGMAS * (error + of_least)
    sure = ((~more & ratio.isfinite()).sum(-1) > 1).all(0)
    without = _taken_out(seen, own, rest, of_least[..., 0], sure)
    if not table.alike:
        return Unmerged(without, Spanned([int(ids[0]) for ids in found.ids], found.ids))
    seen_in = ratio.isfinite()[:, sure].sum((0, 1))
    both = (more & ratio.isfinite())[:, sure].sum((0, 1)) > _OFTEN * seen_in
    tokens = torch.cat([found.tokens, columns.tokens[both]])[: len(positions)]
    read = assign(without, without.average.double(), table, tokens, positions)
    return Unmerged(without, Spanned(read, [tokens] * len(positions)))


def _ratios(seen: Measurements, found: Tensor, columns: _OwnValues) -> tuple[Tensor, Tensor]:
    """Share of each own value in each row over its weight in the own attention, with the error of the same.

    Both ``[kv_heads, rows, columns]``; infinite where the value has little weight there.
    """
    inverse = torch.linalg.pinv(torch.cat([found, columns.values], 1), rtol=1e-12)[..., found.shape[1] :]
    shares = torch.bmm(seen.average.double(), inverse)
    noise = deviation(seen)[:, None] * torch.linalg.vector_norm(inverse, dim=1)
    heavy = columns.weights >= _HEAVY * columns.weights.amax(-1, keepdim=True)
    ratio = torch.where(heavy, shares / columns.weights, torch.inf)
    error = noise[:, None] / columns.weights.clamp(min=torch.finfo(torch.float64).tiny)
    return ratio, torch.hypot(error, torch.tensor(_RELATIVE, dtype=error.dtype))


def _beside_weightless(seen: Measurements, own: Own, idle: Tensor) -> Unmerged | None:
    """The rows that were asked for without weight, with ``w`` from the honest rows of the same queries."""
    bare, honest = idle.nonzero()[:, 0], (~idle).nonzero()[:, 0]
    twins = (seen.queries[:, bare, None] == seen.queries[:, None, honest]).all(-1).all(0)
    paired = twins.any(1).nonzero()[:, 0]
    if not len(paired):
        return None
    pairs = honest[twins[paired].int().argmax(1)]
    average, part = seen.average[:, bare[paired]].double(), seen.at(pairs)
    off = own.average[:, pairs].double() - average
    size = torch.linalg.vector_norm(off, dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    share = ((part.average.double() - average) * off).sum(-1) / size.square()
    error = deviation(part)[:, None] / size
    plain = deviation(part)[:, None].expand_as(error)
    return Unmerged(_with_weights(part, average, share, error, torch.ones(len(pairs), dtype=torch.bool), plain))


def _taken_out(seen: Measurements, own: Tensor, rest: Tensor, error: Tensor, sure: Tensor) -> Measurements:
    kept = 1 - rest.clamp(_CLEAR, 1 - _CLEAR)
    average = (seen.average.double() - (1 - kept)[..., None] * own.double()) / kept[..., None]
    moved = torch.linalg.vector_norm(own.double() - average, dim=-1) / own.shape[-1] ** 0.5
    blur = torch.hypot(deviation(seen)[:, None] / kept, error * moved / kept)
    return _with_weights(seen, average, rest, error, sure, blur)


def _with_weights(
    seen: Measurements, average: Tensor, rest: Tensor, error: Tensor, sure: Tensor, blur: Tensor
) -> Measurements:
    """Measurements of ``A`` with ``l`` from the own log weight and the share ``1 - w`` of the own side."""
    inside = rest.clamp(_CLEAR, 1 - _CLEAR)
    log_weight = seen.maximum.double() + torch.log1p(-inside) - inside.log()
    off = error / (inside * (1 - inside))
    usable = ((rest > _CLEAR) & (rest < 1 - _CLEAR)).all(0) & sure
    rows = _sharpest(off, usable)
    added = seen.disturbance
    log_error = math.hypot(float(off[:, rows].max()), added.log_weight)
    disturbance = Disturbance(float(blur[:, rows].max()), log_error, added.rounding)
    changed = replace(
        seen, average=average.float(), maximum=log_weight.float(), mass=torch.ones_like(seen.mass), summed=True
    )
    return replace(changed.at(rows), disturbance=disturbance)


def _sharpest(error: Tensor, usable: Tensor) -> Tensor:
    """Usable rows of errors ``[kv_heads, rows]`` but for those far worse than most; all where none is usable."""
    worst = error.amax(0)
    good = usable & (worst <= 4 * worst[usable].median()) if bool(usable.any()) else usable
    return good.nonzero()[:, 0] if bool(good.any()) else torch.arange(len(usable))
