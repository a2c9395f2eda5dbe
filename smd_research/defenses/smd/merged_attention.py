"""The decode service's attention: its own keys here, each prompt's at a vault, merged exactly."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from smd_research.boundary.messages import (
    MergedRows,
    MergeQuery,
    Message,
    PartialAttention,
    Query,
    SummedAttention,
)
from smd_research.core.errors import PeerLostError, ProtocolError
from smd_research.defenses.smd.patience import Patience
from smd_research.defenses.smd.requests import Request, SendOrder, ServiceOptions
from smd_research.defenses.smd.stages import Stage, StageClock
from smd_research.mechanisms.attention.exchange import MergePlace
from smd_research.models.attention import AttentionSpec, QueryFirstRuntime
from smd_research.models.partial_attention import NEGATIVE_INFINITY, Partial, join, merge
from smd_research.models.ragged import RaggedKV


class MergedAttention(QueryFirstRuntime):
    """The service's attention: its own output keys here, each prompt's keys at its vault.

    Args:
        kv: keys and values of the generated tokens.
        options: public configuration.
        patience: asks the vaults, and decides how long to wait for them.
        clock: adds up the seconds of each stage, when given.
    """

    def __init__(self, kv: RaggedKV, options: ServiceOptions, patience: Patience, clock: StageClock | None) -> None:
        self._kv = kv
        self._options = options
        self._patience = patience
        self._clock = clock
        self._rows: dict[Request, slice] = {}
        self._asks = False

    def serve(self, rows: dict[Request, slice]) -> None:
        """Name the requests of the step that begins, and their rows in the batch."""
        self._rows = rows
        self._asks = any(request.vault for request in rows)

    def _mark(self, stage: Stage) -> None:
        if self._clock:
            self._clock.mark(stage)

    def enter(self) -> None:
        self._mark(Stage.MLP)

    def ask(self, layer: int, q: Tensor, spec: AttentionSpec) -> None:
        self._mark(Stage.Q_PROJ)
        if self._options.send_order is SendOrder.AFTER_Q and not self._merged_there:
            self._send(layer, q)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self._mark(Stage.KV_PROJ)
        if self._options.send_order is SendOrder.AFTER_KV and not self._merged_there:
            self._send(layer, q)
        self._kv.append(layer, k, v)
        where = positions.expand(q.shape[0]) if positions.dim() == 1 else positions[:, 0]
        own = self._kv.partial(layer, q, where, spec)
        self._mark(Stage.OUT_ATTENTION)
        beside = [own, *spec.sinks(q, v)]
        if not self._asks:
            return merge(beside).to(v.dtype)
        if self._merged_there:
            self._send(layer, q, join(beside))
            return self._received(layer, merge(beside)).to(v.dtype)
        if self._options.send_order is SendOrder.AFTER_ATTENTION:
            self._send(layer, q)
        theirs = self._collect(layer, own.a)
        self._mark(Stage.RECEIVE)
        merged = merge([theirs, *beside]).to(v.dtype)
        self._mark(Stage.MERGE)
        return merged

    @property
    def _merged_there(self) -> bool:
        return self._options.merge is MergePlace.VAULT

    def _send(self, layer: int, q: Tensor, own: Partial | None = None) -> None:
        """Ask the vaults, with the own attention where they are to merge it."""
        rows = q[:, :, 0].to(self._options.wire_dtype).cpu()
        if own is not None:
            weight, a = own.m[:, :, 0].float().cpu(), own.a[:, :, 0].to(self._options.wire_dtype).cpu()
        for request, at in self._rows.items():
            if request.vault:
                query = Query(rows[at], request.start.request, layer, request.position)
                if own is not None:
                    query = MergeQuery(query.q, query.request, layer, query.position, weight[at], a[at])
                self._patience.ask(request, layer, query)
        self._mark(Stage.SEND)

    def _received(self, layer: int, own: Tensor) -> Tensor:
        """The rows ``[batch, heads, 1, d]`` that the vaults merged, the own ones where no vault has a part."""
        _, heads, _, d = own.shape
        answers = self._patience.collect(tuple(self._rows), layer, partial(_fitting_rows, layer, heads, d))
        merged = own.clone()
        for request, answer in answers:
            if isinstance(answer, MergedRows):
                merged[self._rows[request]] = answer.a.to(merged).unsqueeze(2)
        self._mark(Stage.RECEIVE)
        return merged

    def _collect(self, layer: int, own: Tensor) -> Partial:
        """The vaults' shards beside attention ``own [batch, heads, 1, dv]``; empty where there is no answer."""
        _, heads, _, d = own.shape
        answers = dict(self._patience.collect(tuple(self._rows), layer, partial(_fitting, layer, heads, d)))
        shards = [_shard(answers.get(request)) or _nothing(request, heads, d) for request in self._rows]
        parts = shards[0] if len(shards) == 1 else [torch.cat(parts) for parts in zip(*shards, strict=True)]
        return Partial(*(part.to(own.device).unsqueeze(2) for part in parts))

    def vet(self) -> None:
        """Fail the requests whose vaults answered in this step with what is no attention.

        Rows of a batch do not mix: until then it was in the rows of those requests, and in no others. A vault may have
        refused what was made of it, which is the vault's own doing and said to be so.
        """
        attention = {request: _attention(request) for request in self._rows if _vetted(request)}
        if _finite([answer for answers in attention.values() for answer in answers]):
            return
        for request, answers in attention.items():
            if not _finite(answers):
                request.failure = ProtocolError(
                    "a vault answered a query with values that are not finite, or sums below zero"
                )


def _fitting(layer: int, heads: int, d: int, request: Request, answer: Message) -> PartialAttention:
    """An answer that fits its query, whatever form it has.

    Raises:
        ProtocolError: saying what does not fit.
    """
    if isinstance(answer, SummedAttention):
        shard = Partial.summed(answer.log_weight, answer.a)
        answer = PartialAttention(*shard, answer.request, answer.layer, answer.position)
    if not isinstance(answer, PartialAttention):
        raise ProtocolError(f"a vault answered a query with {type(answer).__name__}")
    _check_address(layer, request, answer)
    rows = (request.streams, heads)
    if answer.m.shape != rows or answer.g.shape != rows or answer.a.shape != (*rows, d):
        raise ProtocolError(f"a vault answered with attention of shape {list(answer.a.shape)}, not {[*rows, d]}")
    return answer


def _fitting_rows(layer: int, heads: int, d: int, request: Request, answer: Message) -> MergedRows:
    """Merged rows that fit their query.

    Raises:
        ProtocolError: saying what does not fit.
    """
    if not isinstance(answer, MergedRows):
        raise ProtocolError(f"a vault answered a query with {type(answer).__name__}")
    _check_address(layer, request, answer)
    if answer.a.shape != (request.streams, heads, d):
        raise ProtocolError(
            f"a vault answered with rows of shape {list(answer.a.shape)}, not {[request.streams, heads, d]}"
        )
    return answer


def _check_address(layer: int, request: Request, answer: PartialAttention | MergedRows) -> None:
    if (answer.request, answer.layer, answer.position) != (request.start.request, layer, request.position):
        raise ProtocolError("a vault answered another query than it was asked")


def _shard(answer: Message | None) -> Partial | None:
    """An answer as rows ``[streams, heads]`` and ``[streams, heads, dv]``."""
    return Partial(answer.m, answer.g, answer.a) if isinstance(answer, PartialAttention) else None


def _nothing(request: Request, heads: int, d: int) -> Partial:
    """The shard of a request that has no answer."""
    m = torch.full((request.streams, heads), NEGATIVE_INFINITY)
    return Partial(m, torch.zeros_like(m), torch.zeros(request.streams, heads, d))


def _attention(request: Request) -> list[PartialAttention | MergedRows]:
    """What of a request's answers about the token that is being decoded enters its attention."""
    return [answer for answer in request.answers.values() if isinstance(answer, PartialAttention | MergedRows)]


def _vetted(request: Request) -> bool:
    """Whether a request takes part in the step, or ended in it by what a party said."""
    return not request.late and not isinstance(request.failure, PeerLostError)


def _finite(answers: Sequence[PartialAttention | MergedRows]) -> bool:
    """Whether answers are finite throughout, but for the maximum of an empty row, and no sum is below zero."""
    finite = [answer.a for answer in answers]
    shards = [answer for answer in answers if isinstance(answer, PartialAttention)]
    if shards:
        finite.append(_flat([shard.g for shard in shards]).sqrt())
        finite.append(_flat([shard.m for shard in shards]).amax().clamp(min=0))
    return not finite or bool(_flat(finite).isfinite().all())


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
