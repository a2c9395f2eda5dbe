"""The exchanges of one stream, layer by layer: what was asked, and what the vault answered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import (
    MergedRows,
    MergeQuery,
    PartialAttention,
    Query,
    StartDecode,
    SummedAttention,
)
from smd_research.models.partial_attention import Partial, merge

Reply = PartialAttention | SummedAttention | MergedRows


@dataclass(frozen=True, repr=False)
class Exchanges:
    """Queries of one layer with the attention over the vault's keys, in the order in which they were asked.

    Attributes:
        q: queries ``[steps, heads, head_dim]`` as they crossed.
        m: row maxima ``[steps, heads]``.
        g: exponential sums ``[steps, heads]``.
        a: attention over the vault's keys ``[steps, heads, head_dim]`` as it crossed.
        positions: absolute positions of the queries ``[steps]``.
        summed: ``l = m + log g`` crossed in place of both: ``m`` stands for it, ``g`` is one.
    """

    q: Tensor
    m: Tensor
    g: Tensor
    a: Tensor
    positions: Tensor
    summed: bool = False

    @property
    def log_weight(self) -> Tensor:
        """``l = m + log g`` ``[steps, heads]``, the logarithm of the sum over the vault's keys."""
        return self.m.double() + self.g.double().log()

    def error(self, predicted: Partial) -> tuple[Tensor, Tensor]:
        """How far ``l`` and ``A`` are from predicted shards ``[guesses, heads, steps(, head_dim)]``, same shapes."""
        log_weight = predicted.m.double() + predicted.g.double().log()
        off = log_weight - self.log_weight.t().to(log_weight.device)
        average = self.a.transpose(0, 1).to(log_weight.device).double()
        return off.nan_to_num(nan=0.0), predicted.a.double() - average  # -inf on both sides: no key in sight


@dataclass(frozen=True, repr=False)
class Merges:
    """Queries of one layer with the attention over both sides' keys, which a vault merged.

    Attributes:
        q: queries ``[steps, heads, head_dim]`` as they crossed.
        own: what the provider sent of its own: log weights ``[steps, heads]`` and attention
            ``[steps, heads, head_dim]``.
        a: the merged rows ``[steps, heads, head_dim]`` as they crossed.
        positions: absolute positions of the queries ``[steps]``.
    """

    q: Tensor
    own: Partial
    a: Tensor
    positions: Tensor

    def at(self, steps: Tensor) -> "Merges":
        """Some of the steps, by a mask or an index list."""
        own = Partial(*(part[steps] for part in self.own))
        return Merges(self.q[steps], own, self.a[steps], self.positions[steps])

    def error(self, predicted: Partial) -> tuple[Tensor, Tensor]:
        """How far the merged rows are from those of predicted shards; of ``l``, which never crosses, nothing."""
        device = predicted.a.device
        own = Partial(*(part.transpose(0, 1)[None].to(device) for part in self.own))
        rows = merge([predicted, own]).double()
        return torch.zeros_like(predicted.m, dtype=torch.float64), rows - self.a.transpose(0, 1).to(device).double()


def exchanges(view: AdversaryView) -> dict[int, Exchanges]:
    """The exchanges of a view of one stream, by layer; a query without an answer is left out."""
    return {layer: _stacked(pairs) for layer, pairs in _pairs(view, (PartialAttention, SummedAttention)).items()}


def merges(view: AdversaryView) -> dict[int, Merges]:
    """The exchanges that the vault merged, of a view of one stream, by layer."""
    return {layer: _stacked_merges(pairs) for layer, pairs in _pairs(view, (MergedRows,)).items()}


def answered(view: AdversaryView) -> dict[int, Exchanges | Merges]:
    """What the vault answered a view of one stream by, whichever side merges, by layer."""
    return {**exchanges(view), **merges(view)}


def shard_of(reply: Reply) -> Partial:
    """The attention over the vault's keys that a reply holds, rows ``[streams, heads(, head_dim)]``.

    Raises:
        TypeError: for merged rows, which hold both sides'.
    """
    if isinstance(reply, SummedAttention):
        return Partial.summed(reply.log_weight, reply.a)
    if isinstance(reply, PartialAttention):
        return Partial(reply.m, reply.g, reply.a)
    raise TypeError("merged rows are no shard")


def first_request(view: AdversaryView) -> AdversaryView:
    """A view without what came after its first request to decode."""
    starts = [index for index, (_, message) in enumerate(view.messages) if isinstance(message, StartDecode)]
    return replace(view, messages=view.messages[: starts[1]]) if len(starts) > 1 else view


def public_prefix(view: AdversaryView) -> int:
    """How many leading tokens the provider was given: their keys are its own, no reply covers them."""
    return max((start.public.numel() for start in view.of(StartDecode)), default=0)


def _pairs(view: AdversaryView, kinds: tuple[type[Reply], ...]) -> dict[int, list[tuple[Query, Reply]]]:
    """Queries with their answers of some kinds, by layer; a layer is asked again only once it has answered."""
    asked: dict[tuple[int, int], Query] = {}
    pairs: dict[int, list[tuple[Query, Reply]]] = {}
    for _, message in view.messages:
        if isinstance(message, Query):
            asked[message.request, message.layer] = message
        elif isinstance(message, kinds):
            query = asked.pop((message.request, message.layer), None)
            if query is not None:
                pairs.setdefault(query.layer, []).append((query, message))
    return dict(sorted(pairs.items()))


def _stacked(pairs: Sequence[tuple[Query, Reply]]) -> Exchanges:
    shards = [shard_of(reply) for _, reply in pairs]
    return Exchanges(
        q=torch.cat([query.q for query, _ in pairs]),
        m=torch.cat([shard.m for shard in shards]),
        g=torch.cat([shard.g for shard in shards]),
        a=torch.cat([shard.a for shard in shards]),
        positions=torch.tensor([query.position for query, _ in pairs]),
        summed=isinstance(pairs[0][1], SummedAttention),
    )


def _stacked_merges(pairs: Sequence[tuple[Query, Reply]]) -> Merges:
    queries = [query for query, _ in pairs if isinstance(query, MergeQuery)]
    return Merges(
        q=torch.cat([query.q for query in queries]),
        own=Partial.summed(
            torch.cat([query.log_weight for query in queries]), torch.cat([query.a for query in queries]).float()
        ),
        a=torch.cat([reply.a for _, reply in pairs if isinstance(reply, MergedRows)]),
        positions=torch.tensor([query.position for query in queries]),
    )
