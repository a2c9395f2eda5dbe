"""One batch for all requests of a decode service.

In each layer the batch sends every vault its queries, computes its own keys, values and attention over the generated
tokens meanwhile, merges both (Theorem 1 of arXiv 2409.19134) and goes on. A vault that fails ends its own request only.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from smd_research.boundary import Channel
from smd_research.boundary.messages import (
    HiddenStates,
    NextHidden,
    OutputKeys,
    OutputRequest,
    StartDecode,
    Tokens,
    token_tensor,
)
from smd_research.core.errors import LabError, ProtocolError
from smd_research.defenses.smd.merged_attention import MergedAttention
from smd_research.defenses.smd.requests import Request, SendOrder, ServiceOptions, guarded
from smd_research.defenses.smd.stages import Stage, StageClock
from smd_research.models.attention import KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.ragged import RaggedKV
from smd_research.models.sampling import Sampling

KEPT_PREFIXES = 8


class DecodeBatch:
    """Holds the weights and the generated tokens' keys and values of all requests.

    Args:
        bundle: the model.
        options: public configuration.
        clock: adds up the seconds of each stage of a decode step, when given.
    """

    def __init__(self, bundle: Bundle, options: ServiceOptions, clock: StageClock | None = None) -> None:
        self._bundle = bundle
        self._options = options
        first = options.inner_layers or None
        early = options.send_order is SendOrder.AFTER_Q or clock is not None
        self._model = HookedModel(bundle, first, query_first=early)
        self._whole = HookedModel(bundle)
        self._kv = RaggedKV(bundle.device)
        self._attention = MergedAttention(self._kv, options, clock)
        self._clock = clock
        self.kv_bytes = 0
        self._prefixes: OrderedDict[tuple[int, ...], KVStore] = OrderedDict()
        self._kept: dict[Channel, tuple[int, KVStore]] = {}
        self.requests: list[Request] = []
        self.force: Callable[[Tensor], list[int]] | None = None

    # -- requests come and go ----------------------------------------------------------------------------------------

    def admit(self, start: StartDecode, channel: Channel) -> Request:
        """Take a request into the batch; it decodes from the next step on.

        A request whose whole prompt is public has no vault: the service prefills it and draws the first token too.

        Raises:
            ProtocolError: for a turn of an unknown conversation, or sizes that do not fit.
        """
        self._check(start)
        public, streams = tuple(start.public.tolist()), max(len(start.first), 1)
        temperature, top_p = start.sampling.tolist()
        sampling = Sampling(temperature, top_p)
        plain = len(start.first) == 0
        prefix: KVStore | None
        if plain:
            prefix, logits = self._prefill(public)
            tokens = sampling.choose(logits, start.seed, 0)
            self._notify(channel, tokens)
        else:
            prefix, tokens = self._prefix(start, public, channel), start.first.tolist()
        request = Request(channel, start, sampling, tokens, not plain, position=start.position, step=1)
        request.ended = [self.force is None and token == self._bundle.end_id for token in tokens]
        self._kv.admit(streams, prefix)
        self.requests.append(request)
        return request

    def _check(self, start: StartDecode) -> None:
        """Refuse a request that would fail inside the batch, where it would take the others along.

        Raises:
            ProtocolError: for shapes, tokens or numbers that make no sense.
            PromptError: for a prompt that does not fit the context.
        """
        flat = start.first.dim() == start.public.dim() == 1 and start.sampling.shape == (2,)
        if not flat or start.position < max(start.public.numel(), 1) or start.max_new_tokens < 1:
            raise ProtocolError("a request to decode whose prompt, position or number of tokens make no sense")
        ids = torch.cat([start.first, start.public])
        if ids.is_floating_point() or not bool(((ids >= 0) & (ids < self._bundle.geometry.vocab)).all()):
            raise ProtocolError("a request to decode with tokens that the model does not have")
        if not start.first.numel() and start.public.numel() != start.position:
            raise ProtocolError("a request to decode without a first token whose prompt is not all public")
        self._bundle.check_prompt(start.position, start.max_new_tokens)

    def _prefix(self, start: StartDecode, public: tuple[int, ...], channel: Channel) -> KVStore | None:
        """Keys and values that the service holds before the first step: earlier turns', or public tokens'."""
        if start.turn > 1:
            request, kept = self._kept.get(channel, (None, None))
            if kept is None or request != start.request - 1 or kept.streams != len(start.first):
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
        self.kv_bytes = self._kv.nbytes
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
        end = self._bundle.end_id
        if self.force:
            tokens = self.force(logits)
        else:
            tokens = request.sampling.choose(logits, request.start.seed, request.step)
            # an ended stream goes on as padding: every stream of a request looks alike until all have ended
            tokens = [end if over and end is not None else t for t, over in zip(tokens, request.ended, strict=True)]
            request.ended = [over or t == end for t, over in zip(tokens, request.ended, strict=True)]
        try:
            self._notify(request.channel, tokens)
        except LabError as error:
            request.failure = error
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
