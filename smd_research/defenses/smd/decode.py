"""The decode service: the untrusted party of secure multi-party decoding, one batch for all requests.

In each layer the service sends every vault its queries, computes its own keys, values and attention over the generated
tokens meanwhile, merges both (Theorem 1 of arXiv 2409.19134) and goes on with one batch. A vault that fails ends its
own request only.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from smd_research.boundary import Channel
from smd_research.boundary.messages import (
    Done,
    HiddenStates,
    Message,
    NextHidden,
    OutputKeys,
    OutputRequest,
    PartialAttention,
    Query,
    StartDecode,
    Tokens,
    token_tensor,
)
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
from smd_research.defenses.base import Provider
from smd_research.defenses.smd.stages import Stage, StageClock
from smd_research.mechanisms.partial_attention import NEGATIVE_INFINITY, Partial, merge
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.ragged import RaggedKV
from smd_research.models.sampling import Sampling

KEPT_PREFIXES = 8
T = TypeVar("T")


class SendOrder(StrEnum):
    """When a layer's queries leave for the vaults."""

    AFTER_Q = "after_q"
    AFTER_KV = "after_kv"
    AFTER_ATTENTION = "after_attention"


@dataclass(frozen=True)
class ServiceOptions:
    """Public configuration of the service.

    Attributes:
        wire_dtype: type of queries on the wire.
        send_order: when queries leave.
        inner_layers: decode layers that the vaults run.
    """

    wire_dtype: torch.dtype = torch.float32
    send_order: SendOrder = SendOrder.AFTER_Q
    inner_layers: int = 0


@dataclass(eq=False)
class Request:
    """A request in the batch."""

    channel: Channel
    start: StartDecode
    sampling: Sampling
    tokens: list[int]
    vault: bool
    ended: list[bool] = field(default_factory=list)
    step: int = 0
    position: int = 0
    failure: LabError | None = None

    @property
    def streams(self) -> int:
        """Streams of the request."""
        return len(self.tokens)

    @property
    def live(self) -> bool:
        """Whether there is another token to decode."""
        return self.failure is None and not all(self.ended) and self.step <= self.start.max_new_tokens


class DecodeService(Provider):
    """Holds the weights and the generated tokens' keys and values.

    Args:
        bundle: the model.
        options: public configuration.
        channel: its end of the boundary, for a service of one user.
        clock: adds up the seconds of each stage of a decode step, when given.
    """

    def __init__(
        self, bundle: Bundle, options: ServiceOptions, channel: Channel, clock: StageClock | None = None
    ) -> None:
        super().__init__(channel, bundle.end_id)
        self._bundle = bundle
        self._options = options
        first = options.inner_layers or None
        early = options.send_order is SendOrder.AFTER_Q or clock is not None
        self._model = HookedModel(bundle, first, query_first=early)
        self._whole = HookedModel(bundle)
        self._kv = RaggedKV(bundle.device)
        self._attention = MergedAttention(self._kv, options, clock)
        self._clock = clock
        self._kv_bytes = 0
        self._prefixes: OrderedDict[tuple[int, ...], KVStore] = OrderedDict()
        self._kept: dict[Channel, tuple[int, KVStore]] = {}
        self.requests: list[Request] = []

    # -- one user ----------------------------------------------------------------------------------------------------

    def handle(self, message: Message) -> Message | None:
        if isinstance(message, OutputRequest):
            return self.outputs(message, self.channel)
        if not isinstance(message, StartDecode):
            raise ProtocolError(f"the decode service does not serve {type(message).__name__}")
        request = self.admit(message, self.channel)
        while request.live:
            self.step()
        self.settle()
        if request.failure:
            raise request.failure
        return Done()

    def memory(self) -> dict[str, int]:
        return {"weights": self._bundle.weight_bytes, "kv": self._kv_bytes}

    # -- requests come and go ----------------------------------------------------------------------------------------

    def admit(self, start: StartDecode, channel: Channel) -> Request:
        """Take a request into the batch; it decodes from the next step on.

        A request whose whole prompt is public has no vault: the service prefills it and draws the first token too.

        Raises:
            ProtocolError: for a turn of an unknown conversation, or sizes that do not fit.
        """
        public, streams = tuple(start.public.tolist()), max(len(start.first), 1)
        temperature, top_p = start.sampling.tolist()
        sampling = Sampling(temperature, top_p)
        if start.position < max(len(public), 1) or start.max_new_tokens < 1 or start.first.dim() != 1:
            raise ProtocolError("a request to decode whose prompt, position or number of tokens make no sense")
        self._bundle.check_prompt(start.position, start.max_new_tokens)
        plain = len(start.first) == 0
        prefix: KVStore | None
        if plain:
            prefix, logits = self._prefill(public)
            tokens = sampling.choose(logits, start.seed, 0)
            self._notify(channel, tokens)
        else:
            prefix, tokens = self._prefix(start, public, channel), start.first.tolist()
        request = Request(channel, start, sampling, tokens, not plain, position=start.position, step=1)
        request.ended = [token == self.end_id and self.forced is None for token in tokens]
        self._kv.admit(streams, prefix)
        self.requests.append(request)
        return request

    def _prefix(self, start: StartDecode, public: tuple[int, ...], channel: Channel) -> KVStore | None:
        """Keys and values that the service holds before the first step: earlier turns', or public tokens'."""
        if start.turn > 1:
            request, kept = self._kept.get(channel, (None, None))
            if request != start.request - 1:
                raise ProtocolError(f"turn {start.turn} of a conversation that is not known here")
            return kept
        if not public:
            return None
        if public not in self._prefixes:
            self._prefixes[public] = self._prefill(public)[0]
        self._prefixes.move_to_end(public)
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)
        return self._prefixes[public]

    def _prefill(self, ids: Sequence[int]) -> tuple[KVStore, Tensor]:
        store = KVStore(capacity=len(ids))
        device = self._bundle.device
        positions = torch.arange(len(ids), device=device)
        feed = torch.tensor([list(ids)], device=device)
        logits = self._whole.forward(LocalAttention(store), positions, ids=feed, last_only=True)[:, -1]
        store.forget_below(self._options.inner_layers)
        return store, logits

    def settle(self) -> list[Request]:
        """Take requests that are done or failed out of the batch and return them."""
        over = [request for request in self.requests if not request.live]
        if not over:
            return []
        self._kv_bytes = self._kv.nbytes
        kept: list[int] = []
        for request, rows in zip(self.requests, self._rows(), strict=True):
            if request.live:
                kept.extend(range(rows.start, rows.stop))
            elif request.start.turn and not request.failure:
                store = self._kv.extract(rows.start, request.streams)
                self._kept[request.channel] = (request.start.request, store)
        self.requests = [request for request in self.requests if request.live]
        self._kv.keep(kept)
        return over

    def forget(self, channel: Channel) -> None:
        """Drop what was kept for a user who has left."""
        self._kept.pop(channel, None)

    def outputs(self, message: OutputRequest, channel: Channel) -> OutputKeys:
        """Keys and values of a conversation so far, for the vault to prefill the next turn."""
        request, store = self._kept.get(channel, (None, None))
        if store is None or request != message.request:
            raise ProtocolError(f"nothing is kept of request {message.request}")
        keys, values, positions = zip(*(store.get(layer) for layer in store.layers), strict=True)
        return OutputKeys(torch.tensor(store.layers), torch.stack(keys), torch.stack(values), positions[0])

    # -- one step ----------------------------------------------------------------------------------------------------

    def _rows(self) -> list[slice]:
        rows, first = [], 0
        for request in self.requests:
            rows.append(slice(first, first + request.streams))
            first += request.streams
        return rows

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token of every stream in the batch."""
        device = self._bundle.device
        rows = self._rows()
        where = [request.position for request in self.requests for _ in request.tokens]
        positions = torch.tensor(where, device=device)
        self._kv.begin(positions)
        self._attention.serve(list(zip(self.requests, rows, strict=True)))
        ids = hidden = None
        if self._options.inner_layers:
            hidden = self._hidden(len(where)).unsqueeze(1)
        else:
            ids = torch.tensor([[token] for request in self.requests for token in request.tokens], device=device)
        # streams at one position share it, as a single request's do
        shared = positions[:1] if len(set(where)) == 1 else positions.unsqueeze(1)
        logits = self._model.forward(self._attention, shared, ids=ids, hidden=hidden)[:, -1]
        for request, own in zip(self.requests, rows, strict=True):
            if request.failure is None:
                self._draw(request, logits[own])
        if self._clock:
            self._clock.mark(Stage.MLP)
            self._clock.steps += 1

    def _draw(self, request: Request, logits: Tensor) -> None:
        if self.forced is None:
            tokens = request.sampling.choose(logits, request.start.seed, request.step)
        else:
            self.logits.append(logits.detach().clone())
            tokens = [self.forced[len(self.logits) - 1]] * len(logits)
        # an ended stream goes on as padding: every stream of a request looks alike until all have ended
        tokens = [
            self.end_id if over and self.end_id is not None else token
            for token, over in zip(tokens, request.ended, strict=True)
        ]
        try:
            self._notify(request.channel, tokens)
        except LabError as error:
            request.failure = error
        if self.forced is None:
            request.ended = [over or token == self.end_id for token, over in zip(tokens, request.ended, strict=True)]
        request.tokens = tokens
        request.position += 1
        request.step += 1

    @staticmethod
    def _notify(channel: Channel, tokens: list[int]) -> None:
        channel.notify(Tokens(token_tensor(tokens)))

    def _hidden(self, streams: int) -> Tensor:
        """States of the newest tokens after the layers that the vaults run ``[streams, width]``."""
        width = self._bundle.geometry.width
        states = torch.zeros(streams, width, dtype=self._bundle.dtype, device=self._bundle.device)
        waiting = []
        for request, rows in zip(self.requests, self._rows(), strict=True):
            ask = NextHidden(request.start.request, request.position)
            waiting.append((request, rows, guarded(request, partial(request.channel.post, ask))))
        for request, rows, reply in waiting:
            answer = reply and guarded(request, reply)
            if answer is None:
                continue
            if not isinstance(answer, HiddenStates) or answer.hidden.shape != (request.streams, width):
                request.failure = ProtocolError("a vault answered a request for hidden states with something else")
                continue
            states[rows] = answer.hidden.to(states)
        return states


def guarded(request: Request, act: Callable[[], T]) -> T | None:
    """Do something for one request; what goes wrong fails that request and nothing else."""
    if request.failure is not None:
        return None
    try:
        return act()
    except (PeerLostError, ProtocolError) as error:
        request.failure = error
        return None


class MergedAttention:
    """The service's attention: its own output keys here, each prompt's keys at its vault."""

    def __init__(self, kv: RaggedKV, options: ServiceOptions, clock: StageClock | None) -> None:
        self._kv = kv
        self._options = options
        self._clock = clock
        self._private: list[tuple[Request, slice]] = []
        self._waiting: list[tuple[Request, slice, Callable[[], Message] | None]] = []

    def serve(self, requests: Sequence[tuple[Request, slice]]) -> None:
        """Name the requests of the step that begins, and their rows in the batch."""
        self._private = [(request, rows) for request, rows in requests if request.vault]

    def _mark(self, stage: Stage) -> None:
        if self._clock:
            self._clock.mark(stage)

    def enter(self) -> None:
        self._mark(Stage.MLP)

    def ask(self, layer: int, q: Tensor, spec: AttentionSpec) -> None:
        self._mark(Stage.Q_PROJ)
        if self._options.send_order is SendOrder.AFTER_Q:
            self._send(layer, q)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self._mark(Stage.KV_PROJ)
        if self._options.send_order is SendOrder.AFTER_KV:
            self._send(layer, q)
        self._kv.append(layer, k, v)
        where = positions.expand(q.shape[0]) if positions.dim() == 1 else positions[:, 0]
        own = self._kv.partial(layer, q, where, spec)
        self._mark(Stage.OUT_ATTENTION)
        if self._options.send_order is SendOrder.AFTER_ATTENTION:
            self._send(layer, q)
        if not self._waiting:
            return own.a
        theirs = self._collect(layer, q)
        self._mark(Stage.RECEIVE)
        merged = merge([theirs, own]).to(v.dtype)
        self._mark(Stage.MERGE)
        return merged

    def _send(self, layer: int, q: Tensor) -> None:
        rows = q[:, :, 0].to(self._options.wire_dtype).cpu()
        self._waiting = []
        for request, own in self._private:
            query = Query(rows[own], request.start.request, layer, request.position)
            post = guarded(request, partial(request.channel.post, query))
            self._waiting.append((request, own, post))
        self._mark(Stage.SEND)

    def _collect(self, layer: int, q: Tensor) -> Partial:
        """The vaults' shards, as rows of the batch; a request without an answer has an empty one."""
        whole, heads, _, d = q.shape
        shards = []
        for request, rows, reply in self._waiting:
            answer = reply and guarded(request, partial(_answer, reply, request, layer, heads, d))
            if answer is not None:
                shards.append((request, rows, answer))
        self._waiting = []
        if len(shards) == 1 and shards[0][2].m.shape[0] == whole:
            answer = shards[0][2]
            joined = Partial(*(x.to(q.device).unsqueeze(2) for x in (answer.m, answer.g, answer.a)))
        else:
            joined = _joined(shards, q)
        if shards and not _sound(joined):
            self._expose(shards, joined)
        return joined

    def _expose(self, shards: Sequence[tuple[Request, slice, PartialAttention]], joined: Partial) -> None:
        """Fail the requests whose shard is no attention, and empty it."""
        for request, rows, answer in shards:
            if not _sound(Partial(answer.m, answer.g, answer.a)):
                request.failure = ProtocolError("a vault answered a query with values that are not finite")
                joined.m[rows] = NEGATIVE_INFINITY
                joined.g[rows] = 0
                joined.a[rows] = 0


def _answer(reply: Callable[[], Message], request: Request, layer: int, heads: int, d: int) -> PartialAttention:
    """Wait for a reply and hold it against its query.

    Raises:
        ProtocolError: saying what does not fit.
    """
    answer = reply()
    if not isinstance(answer, PartialAttention):
        raise ProtocolError(f"a vault answered a query with {type(answer).__name__}")
    if (answer.request, answer.layer, answer.position) != (request.start.request, layer, request.position):
        raise ProtocolError("a vault answered another query than it was asked")
    rows = (request.streams, heads)
    if answer.m.shape != rows or answer.g.shape != rows or answer.a.shape != (*rows, d):
        raise ProtocolError(f"a vault answered with attention of shape {list(answer.a.shape)}, not {[*rows, d]}")
    return answer


def _sound(shard: Partial) -> bool:
    """Whether a shard can be merged: finite throughout, but for the maximum of an empty row."""
    total = shard.g.float().sum() + shard.a.float().sum() + shard.m.float().amax().clamp(min=0)
    return bool(total.isfinite())


def _joined(shards: Sequence[tuple[Request, slice, PartialAttention]], q: Tensor) -> Partial:
    """Shards of all requests as rows of one, empty where there is none."""
    streams, heads, _, d = q.shape
    m = torch.full((streams, heads, 1), NEGATIVE_INFINITY, device=q.device)
    g = torch.zeros(streams, heads, 1, device=q.device)
    a = torch.zeros(streams, heads, 1, d, device=q.device)
    for _, rows, answer in shards:
        m[rows, :, 0], g[rows, :, 0], a[rows, :, 0] = answer.m.to(m), answer.g.to(g), answer.a.to(a)
    return Partial(m, g, a)
