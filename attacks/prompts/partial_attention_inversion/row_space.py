"""Membership: a token is in the prompt if its value lies in the span of the replies.

Every average ``A`` of a key/value head is a combination of the prompt's value vectors. With as many independent rows as
distinct values, and fewer of these than the head has dimensions, the rows span what the values span, and no value of
another token lies in there. Neither ``m`` nor ``g`` is used: noise on them, or leaving them out, changes nothing.

Rounding and noise blur the span. Directions are therefore weighed by how far they stand out of the noise, as Capon's
beamformer does (Proc. IEEE 57(8), 1969): with singular values ``s`` and the noise's ``tau`` a direction explains
``s^2 / (s^2 + tau^2)`` of what lies along it, so that no rank has to be chosen.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.measurements import LayerTable, Measurements

_FIRST_LOOK = 1024  # tokens that are looked at in fp64, the best of all in fp32
_BLOCK = 2048  # tokens measured at once, so that what is between stays in a core's cache
_SHARP = -3.0  # decimal orders a head
_UNSEEN = 1e-8  # share of a squared value that rounding leaves in a quotient by its own
_SPARE = 16  # of a shortlist beyond twice the rank


@dataclass(frozen=True)
class RowSpace:
    """What the replies of each key/value head span.

    Attributes:
        outside: for each usable head, a map ``[dims, dims]`` whose squared length is what a value has outside.
        heads: the usable heads ``[usable]``: those whose rows span less than they could.
        rank: directions that stand out of the noise, the most over the usable heads; 0 when none is usable.
        blur: distance that a value along the weakest of these directions may seem to have.
        quotient: for each usable head, columns ``[head_dim, dims]`` that values are seen along; None: as they are.
    """

    outside: Tensor
    heads: Tensor
    rank: int
    blur: float = 0.0
    quotient: Tensor | None = None

    @classmethod
    def of(cls, average: Tensor, deviation: Tensor, beside: Tensor | None = None) -> "RowSpace":
        """The space of averages, beside another one where one is given.

        Args:
            average: ``[kv_heads, rows, head_dim]``.
            deviation: of the noise of their entries ``[kv_heads]``.
            beside: rows ``[kv_heads, rows, head_dim]`` whose span counts as nothing: the space is one of the quotient.
        """
        if beside is not None:
            quotient = _complement(beside.double(), deviation.double())
            if not quotient.shape[2]:
                return cls(quotient[:0], torch.empty(0, dtype=torch.long), 0)
            space = cls.of(torch.bmm(average.double(), quotient), deviation)
            return replace(space, quotient=quotient[space.heads])
        _, rows, dim = average.shape
        triangle = torch.linalg.qr(average.double(), mode="r").R
        _, sizes, directions = torch.linalg.svd(triangle, full_matrices=True)
        noise = _loudest(deviation.double(), rows, dim)
        ranks = (sizes > noise).sum(1)
        heads = (ranks < min(rows, dim)).nonzero()[:, 0]
        missed = torch.ones(len(average), dim, dtype=torch.float64)
        missed[:, : sizes.shape[1]] = (1 + (sizes / noise).square()).rsqrt()
        outside = (directions * missed[..., None])[heads]
        weakest = missed.gather(1, (ranks - 1).clamp(min=0)[:, None])[heads, 0]
        rank = int(ranks[heads].max()) if len(heads) else 0
        return cls(outside, heads, rank, float(weakest.square().log10().sum()))

    @property
    def sharp(self) -> bool:
        """Whether what lies inside is told by its distance alone, whatever else is there."""
        return self.rank > 0 and self.blur < _SHARP * len(self.heads)

    def distance(self, values: Tensor) -> Tensor:
        """How far values ``[tokens, kv_heads, head_dim]`` lie outside: decimal orders, over all heads ``[tokens]``.

        Values that the quotient does not see are as far as can be.
        """
        own = self._own(values)
        whole = own.square().sum(-1).clamp(min=torch.finfo(own.dtype).tiny)
        unseen = torch.zeros(len(values), dtype=torch.bool)
        if self.quotient is not None:
            own, before = torch.bmm(own, self.quotient.to(own)), whole
            whole = own.square().sum(-1).clamp(min=torch.finfo(own.dtype).tiny)
            unseen = (whole < _UNSEEN * before).any(0)
        away = torch.bmm(own, self.outside.transpose(1, 2)).square().sum(-1)
        return (away / whole).clamp(min=torch.finfo(own.dtype).tiny).log10().sum(0).masked_fill(unseen, 0.0)

    def outer(self, values: Tensor) -> Tensor:
        """The parts of values ``[tokens, kv_heads, head_dim]`` outside, heads one after another ``[tokens, dims]``."""
        own = self._own(values)
        if self.quotient is not None:
            own = torch.bmm(own, self.quotient.to(own))
        return torch.bmm(own, self.outside.transpose(1, 2)).transpose(0, 1).flatten(1)

    def _own(self, values: Tensor) -> Tensor:
        """Values of the usable heads ``[usable, tokens, head_dim]``."""
        return values[:, self.heads].transpose(0, 1).to(self.outside)

    def nearest(self, values: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """The ``most`` tokens of ``values [tokens, kv_heads, head_dim]`` that lie outside least, and how far."""
        rough = replace(self, outside=self.outside.float())
        coarse = torch.cat([rough.distance(some) for some in torch.split(values, _BLOCK)])
        ids = coarse.topk(min(max(most, _FIRST_LOOK), len(coarse)), largest=False).indices
        exact = self.distance(values[ids])
        best = exact.topk(min(most, len(ids)), largest=False)
        return ids[best.indices], best.values


def _loudest(deviation: Tensor, rows: int, dim: int) -> Tensor:
    """Largest singular value ``[kv_heads, 1]`` of noise alone."""
    loudest: Tensor = deviation[:, None] * (rows**0.5 + dim**0.5) + torch.finfo(torch.float64).tiny
    return loudest


def _complement(rows: Tensor, deviation: Tensor) -> Tensor:
    """Orthonormal columns ``[kv_heads, head_dim, dims]`` outside the span of rows, as many for every head."""
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=True)
    rank = int((sizes > _loudest(deviation, *rows.shape[1:])).sum(1).max())
    outside: Tensor = directions[:, rank:].transpose(1, 2)
    return outside


def deviation(seen: Measurements) -> Tensor:
    """Standard deviation that rounding and noise give the entries of ``A`` of each head ``[kv_heads]``."""
    average = seen.average.double()
    wire = seen.precision * average.abs() / 12**0.5
    arithmetic = 2 * seen.value_precision * average.abs().amax(-1, keepdim=True)
    return (wire.square() + arithmetic.square() + seen.disturbance.average**2).mean((1, 2)).sqrt()


@dataclass(frozen=True)
class Members:
    """Tokens in the row space.

    Attributes:
        ids: for each open position its shortlist, nearest first.
        distances: of the same.
        rank: how many distinct values the prompt has.
    """

    ids: list[Tensor]
    distances: list[Tensor]
    rank: int

    @property
    def tokens(self) -> Tensor:
        """The ``rank`` tokens nearest of all, where each position has the same."""
        return self.ids[0][: self.rank]


def members(space: RowSpace, table: LayerTable, positions: list[int]) -> Members | None:
    """The tokens in a row space at absolute positions; None where the space is all there is.

    Where values depend on the token alone, all positions share one shortlist.
    """
    if not space.rank:
        return None
    rank = min(space.rank, len(positions))
    most = 2 * rank + _SPARE
    if table.alike:
        found = space.nearest(table.values(0), most)
        return Members([found[0]] * len(positions), [found[1]] * len(positions), rank)
    each = [space.nearest(table.values(position), most) for position in positions]
    return Members([ids for ids, _ in each], [away for _, away in each], rank)
