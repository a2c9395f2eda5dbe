"""The exchanges of one stream, layer by layer: what was asked, and what the vault answered."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PartialAttention, Query, StartDecode


@dataclass(frozen=True, repr=False)
class Exchanges:
    """Queries of one layer with their answers, in the order in which they were asked.

    Attributes:
        q: queries ``[steps, heads, head_dim]`` as they crossed.
        m: row maxima ``[steps, heads]``.
        g: exponential sums ``[steps, heads]``.
        a: attention over the vault's keys ``[steps, heads, head_dim]`` as it crossed.
        positions: absolute positions of the queries ``[steps]``.
    """

    q: Tensor
    m: Tensor
    g: Tensor
    a: Tensor
    positions: Tensor

    @property
    def log_weight(self) -> Tensor:
        """``l = m + log g`` ``[steps, heads]``, the logarithm of the sum over the vault's keys."""
        return self.m.double() + self.g.double().log()


def exchanges(view: AdversaryView) -> dict[int, Exchanges]:
    """The exchanges of a view of one stream, by layer; a query without an answer is left out."""
    asked: dict[tuple[int, int], Query] = {}
    pairs: dict[int, list[tuple[Query, PartialAttention]]] = {}
    for _, message in view.messages:
        if isinstance(message, Query):
            asked[message.request, message.layer] = message
        elif isinstance(message, PartialAttention):
            query = asked.pop((message.request, message.layer), None)
            if query is not None:
                pairs.setdefault(message.layer, []).append((query, message))
    return {layer: _stacked(found) for layer, found in sorted(pairs.items())}


def public_prefix(view: AdversaryView) -> int:
    """How many leading tokens the provider was given: their keys are its own, no reply covers them."""
    return max((start.public.numel() for start in view.of(StartDecode)), default=0)


def _stacked(pairs: list[tuple[Query, PartialAttention]]) -> Exchanges:
    return Exchanges(
        q=torch.cat([query.q for query, _ in pairs]),
        m=torch.cat([reply.m for _, reply in pairs]),
        g=torch.cat([reply.g for _, reply in pairs]),
        a=torch.cat([reply.a for _, reply in pairs]),
        positions=torch.tensor([query.position for query, _ in pairs]),
    )
