"""One batch for all requests of a decode service.

In each layer the batch sends every vault its queries, computes its own keys, values and attention over the generated
tokens meanwhile, merges both (Theorem 1 of arXiv 2409.19134) and goes on. A vault that fails ends its own request only,
and a request whose vault is slower than the others can bear waits beside the batch until it answers (``patience``).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from smd_research.boundary import Channel
from smd_research.boundary.messages import (
    HiddenStates,
    Message,
    NextHidden,
    OutputKeys,
    OutputRequest,
    StartDecode,
    Tokens,
    token_tensor,
)
from smd_research.core.errors import ProtocolError
from smd_research.defenses.smd.merged_attention import MergedAttention
from smd_research.defenses.smd.patience import NobodyLeftError, Patience
from smd_research.defenses.smd.requests import INNER, Request, SendOrder, ServiceOptions, guarded, unforeseen
from smd_research.defenses.smd.stages import Stage, StageClock
from smd_research.models.attention import KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel, decoder_of
from smd_research.models.ragged import RaggedKV
from smd_research.models.sampling import Sampling

KEPT_PREFIXES = 8
MOST_STREAMS = 1024


class DecodeBatch:
    """Holds the weights and the generated tokens' keys and values of all requests.

    Args:
        bundle: the model.
        options: public configuration.
        clock: adds up the seconds of each stage of a decode step, when given.
        patience: asks the vaults, and decides how long to wait for them.
        most_streams: streams that a request may have.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: ServiceOptions,
        clock: StageClock | None = None,
        *,
        patience: Patience | None = None,
        most_streams: int = MOST_STREAMS,
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._patience = patience or Patience()
        self._most_streams = most_streams
        first = options.inner_layers or None
        early = options.send_order is SendOrder.AFTER_Q or clock is not None
        self._model = decoder_of(bundle, first, query_first=early)
        self._whole = HookedModel(bundle)
        self._kv = RaggedKV(bundle.device)
        self._attention = MergedAttention(self._kv, options, self._patience, clock)
        self._clock = clock
        self.kv_bytes = 0
        self._prefixes: OrderedDict[tuple[int, ...], KVStore] = OrderedDict()
        self._kept: dict[Channel, tuple[int, KVStore]] = {}
        self.requests: list[Request] = []
        self.waiting: list[Request] = []
        self.force: Callable[[Tensor], list[int]] | None = None

    # -- requests come and go ----------------------------------------------------------------------------------------

    @torch.inference_mode()
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
        request.ended = [self.force is None and token in self._bundle.end_ids for token in tokens]
        self._kv.admit(streams, prefix)
        self.requests.append(request)
        return request

    def _check(self, start: StartDecode) -> None:
        """Refuse a request that would fail inside the batch, where it would take the others along.

        Raises:
            ProtocolError: for shapes, tokens or numbers that make no sense.
            PromptError: for tokens that the model does not have, or a prompt that does not fit the context.
        """
        sensible = start.position >= max(start.public.numel(), 1) and start.max_new_tokens >= 1 and start.turn >= 0
        if start.sampling.shape != (2,) or not sensible:
            raise ProtocolError("a request to decode whose prompt, position or number of tokens make no sense")
        self._bundle.check_prompt(start.position, start.max_new_tokens)
        if start.first.numel() > self._most_streams:
            raise ProtocolError(f"a request to decode more than {self._most_streams} streams")
        self._bundle.check_ids(torch.cat([start.first, start.public]))
        if not start.first.numel() and start.public.numel() != start.position:
            raise ProtocolError("a request to decode without a first token whose prompt is not all public")

    def _prefix(self, start: StartDecode, public: tuple[int, ...], channel: Channel) -> KVStore | None:
        """Keys and values that the service holds before the first step: earlier turns', or public tokens'."""
        if start.turn > 1:
            request, kept = self._kept.get(channel, (None, None))
            if kept is None or request != start.request - 1 or kept.streams != len(start.first):
                raise ProtocolError(f"turn {start.turn} of a conversation that is not known here")
            self._bundle.check_prompt(kept.length(kept.layers[0]), start.max_new_tokens)
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

    @torch.inference_mode()
    def rejoin(self, request: Request) -> None:
        """Take a request whose vault has answered into the batch again."""
        self._kv.admit(request.streams, request.kv)
        request.kv, request.late = None, False
        self.waiting.remove(request)
        self.requests.append(request)

    def _set_aside(self) -> bool:
        """Put requests that were late in this step beside the batch, as they were before it; whether there were any."""
        late = {request: rows for request, rows in self._rows().items() if request.late and request.failure is None}
        for request, rows in late.items():
            request.kv = self._kv.extract(rows.start, request.streams, but_last=True)
        if late:
            self._keep([request for request in self.requests if request not in late])
            self.waiting.extend(late)
        return bool(late)

    @torch.inference_mode()
    def settle(self) -> list[Request]:
        """Take requests that are done or failed out of the batch and return them."""
        over = [request for request in (*self.requests, *self.waiting) if not request.live]
        if not over:
            return []
        self.kv_bytes = self._kv.nbytes
        for request, rows in self._rows().items():
            if not request.live and request.start.turn and not request.failure:
                store = self._kv.extract(rows.start, request.streams)
                self._kept[request.channel] = (request.start.request, store)
        self._keep([request for request in self.requests if request.live])
        self.waiting = [request for request in self.waiting if request.live]
        return over

    def _keep(self, staying: list[Request]) -> None:
        rows = self._rows()
        self._kv.keep([row for request in staying for row in range(rows[request].start, rows[request].stop)])
        self.requests = staying

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

    def _rows(self) -> dict[Request, slice]:
        rows, first = {}, 0
        for request in self.requests:
            rows[request] = slice(first, first + request.streams)
            first += request.streams
        return rows

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token of every stream in the batch, but of those whose vault lets the others wait."""
        self._patience.begin()
        try:
            self._decode()
        except NobodyLeftError:
            self._attention.vet()
        except Exception as error:  # of nobody in particular, such as memory that does not suffice
            for request in self.requests:
                request.failure = request.failure or unforeseen(error)
        self._patience.end(self._set_aside())

    def _decode(self) -> None:
        device = self._bundle.device
        rows = self._rows()
        where = [request.position for request in self.requests for _ in request.tokens]
        positions = torch.tensor(where, device=device)
        self._kv.begin(positions)
        self._attention.serve(rows)
        ids = hidden = None
        if self._options.inner_layers:
            hidden = self._hidden(rows, len(where)).unsqueeze(1)
        else:
            ids = torch.tensor([[token] for request in self.requests for token in request.tokens], device=device)
        # streams at one position share it, as a single request's do
        shared = positions[:1] if len(set(where)) == 1 else positions.unsqueeze(1)
        logits = self._model.forward(self._attention, shared, ids=ids, hidden=hidden)[:, -1]
        self._attention.vet()
        for request, own in rows.items():
            if request.present:
                guarded(request, partial(self._draw, request, logits[own]))
        if self._clock:
            self._clock.mark(Stage.MLP)

    def _draw(self, request: Request, logits: Tensor) -> None:
        if self.force:
            tokens = self.force(logits)
        else:
            tokens = request.sampling.choose(logits, request.start.seed, request.step)
            # an ended stream goes on as padding: every stream of a request looks alike until all have ended
            streams = zip(tokens, request.tokens, request.ended, strict=True)
            tokens = [end if over else token for token, end, over in streams]
            request.ended = [token in self._bundle.end_ids for token in tokens]
        self._notify(request.channel, tokens)
        request.tokens = tokens
        request.position += 1
        request.step += 1
        request.answers.clear()

    @staticmethod
    def _notify(channel: Channel, tokens: list[int]) -> None:
        channel.notify(Tokens(token_tensor(tokens)))

    def _hidden(self, rows: dict[Request, slice], streams: int) -> Tensor:
        """States of the newest tokens after the layers that the vaults run ``[streams, width]``."""
        width = self._bundle.geometry.width
        states = torch.zeros(streams, width, dtype=self._bundle.dtype, device=self._bundle.device)
        for request in rows:
            self._patience.ask(request, INNER, NextHidden(request.start.request, request.position))
        for request, answer in self._patience.collect(tuple(rows), INNER, partial(_states, width)):
            if isinstance(answer, HiddenStates):
                states[rows[request]] = answer.hidden.to(states)
        return states


def _states(width: int, request: Request, answer: Message) -> HiddenStates:
    if not isinstance(answer, HiddenStates) or answer.hidden.shape != (request.streams, width):
        raise ProtocolError("a vault answered a request for hidden states with something else")
    if not bool(answer.hidden.isfinite().all()):
        raise ProtocolError("a vault answered a request for hidden states with values that are not finite")
    return answer
