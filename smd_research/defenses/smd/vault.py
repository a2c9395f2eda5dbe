"""The vault: the trusted party of secure multi-party decoding, one for each user."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from smd_research.boundary import Channel
from smd_research.boundary.messages import (
    HiddenStates,
    MergedRows,
    MergeQuery,
    Message,
    NextHidden,
    OutputKeys,
    OutputRequest,
    PartialAttention,
    Query,
    StartDecode,
    SummedAttention,
    Tokens,
    token_tensor,
)
from smd_research.core.errors import ProtocolError
from smd_research.defenses.base import Client
from smd_research.defenses.smd.guards import Guards
from smd_research.mechanisms.attention.exchange import MergePlace, ReplyForm
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial, merge
from smd_research.models.sampling import GREEDY, Sampling


class Vault(Client):
    """Keys and values of a user's prompts, and the answers to the provider's queries over them.

    A request decodes one or several streams of equal length at once; the user reads the stream ``authentic``.
    ``position`` is where the next token that nobody has processed stands.

    Args:
        wire_dtype: type in which attention crosses; ``m`` and ``g`` always cross in fp32.
        inner_layers: decode layers that run here, before the provider's first.
        guards: looks at queries, and changes replies, before they pass.
        reply: what of its attention crosses, where the provider merges.
        place: who merges; here, the provider's own attention comes with its queries, and no reply is without it.
    """

    def __init__(
        self,
        wire_dtype: torch.dtype,
        inner_layers: int = 0,
        guards: Guards | None = None,
        reply: ReplyForm = ReplyForm.MGA,
        place: MergePlace = MergePlace.PROVIDER,
    ) -> None:
        super().__init__()
        self._form, self._place = reply, place
        self._wire_dtype = wire_dtype
        self._inner_layers = inner_layers
        self._guards = guards
        self._inner: HookedModel | None = None
        self.store = KVStore()
        self.authentic = 0
        self._request = 0
        self._decoded = False
        self.position = 0
        self._end = 0
        self._vocab = 0
        self._specs: dict[int, AttentionSpec] = {}
        self._heads: dict[int, int] = {}
        self._latest: Sequence[int] = ()

    # -- prefill -----------------------------------------------------------------------------------------------------

    def prefill(self, model: HookedModel, prompts: Tensor, public: int = 0) -> Tensor:
        """Process whole prompts with borrowed weights and keep the keys and values of what is secret.

        Args:
            model: the whole model, not kept.
            prompts: token ids ``[streams, n]``.
            public: leading tokens whose keys the provider has; not kept.

        Returns:
            Logits ``[streams, vocab]`` of the first generated token.
        """
        self.store = KVStore(capacity=prompts.shape[1])
        attention = LocalAttention(self.store)
        positions = torch.arange(prompts.shape[1], device=prompts.device)
        logits = model.forward(attention, positions, ids=prompts, last_only=True)[:, -1]
        self._know(attention, prompts.shape[1])
        if public:
            self.store.drop_first(public, self._inner_layers)
        return logits

    def _know(self, attention: LocalAttention, length: int) -> None:
        """Take from a prefill of prompts of a length what queries are held against."""
        self._specs = {layer: replace(spec, sink=None) for layer, spec in attention.specs.items()}
        self._heads, self.position = attention.heads, length

    def prefill_turn(self, model: HookedModel, ids: Sequence[int], channel: Channel) -> Tensor:
        """Process a later turn of a conversation, which sees the earlier turns' keys of both sides.

        Args:
            model: the whole model, not kept.
            ids: tokens since the last answer.
            channel: to the provider, which is asked for its keys and values of the answers.

        Returns:
            Logits ``[1, vocab]`` of the turn's first generated token.
        """
        both = self.store.copy()
        if self._decoded:
            outputs = self._outputs(channel)
            for layer, k, v in zip(outputs.layers.tolist(), outputs.k, outputs.v, strict=True):
                both.append(layer, k.to(both.dtype), v.to(both.dtype), outputs.positions)
        # the last token of the answer was drawn, but its keys were never computed
        feed = [self._latest[0], *ids]
        positions = torch.arange(self.position, self.position + len(feed), device=both.device)
        logits = model.forward(
            LocalAttention(both), positions, ids=torch.tensor([feed], device=both.device), last_only=True
        )[:, -1]
        for layer in both.layers:
            k, v, _ = both.get(layer)
            self.store.append(layer, k[:, :, -len(feed) :], v[:, :, -len(feed) :], positions)
        self.position += len(feed)
        return logits

    # -- decoding ----------------------------------------------------------------------------------------------------

    def decode(
        self,
        channel: Channel,
        logits: Tensor,
        *,
        public: Sequence[int] = (),
        max_new_tokens: int,
        end_ids: Collection[int],
        sampling: Sampling = GREEDY,
        seed: int = 0,
        forced: int | None = None,
        turn: int = 0,
        inner: HookedModel | None = None,
    ) -> None:
        """Have the provider decode after a prefill, until every stream has ended.

        Args:
            channel: to the provider.
            logits: of the first generated token ``[streams, vocab]``.
            public: the prompt's leading tokens that the provider may know.
            max_new_tokens: tokens to generate, the first one included.
            end_ids: tokens, any of which ends a stream.
            sampling: the law of the next token.
            seed: of the request's sampling.
            forced: the first token, when it is not to be chosen.
            turn: 0 for a single request; from 1 on the turn of a conversation.
            inner: blocks ``0 .. inner_layers``, when some decode layers run here.

        Raises:
            ProtocolError: when the provider refuses.
            PeerLostError: when it is gone.
        """
        first = sampling.choose(logits, seed, 0) if forced is None else [forced] * len(logits)
        goes_on, self._decoded, self._end = self._decoded and turn > 1, False, self.position
        self._inner = inner
        self._latest = first
        self.take(first[self.authentic])
        if max_new_tokens == 1 or (forced is None and all(token in end_ids for token in first)):
            return
        self._request += 1
        self._decoded = True
        self._end, self._vocab = self.position + max_new_tokens - 1, logits.shape[-1]
        if self._guards:
            self._guards.begin(self.position, max_new_tokens - 1)
        law = torch.tensor([sampling.temperature, sampling.top_p])
        channel.request(
            StartDecode(
                token_tensor(first),
                token_tensor(tuple(public)),
                law,
                self._request,
                self.position,
                max_new_tokens - 1,
                seed,
                turn if goes_on else min(turn, 1),
            )
        )

    def _outputs(self, channel: Channel) -> OutputKeys:
        """Keys and values that the provider holds of this conversation."""
        answer = channel.request(OutputRequest(self._request))
        if not isinstance(answer, OutputKeys):
            raise ProtocolError(f"the provider answered a request for its keys with {type(answer).__name__}")
        return answer

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if isinstance(message, Query):
            return self._attend(message)
        if isinstance(message, Tokens):
            self._next(message.ids.tolist())
            return None
        if isinstance(message, NextHidden):
            return self._next_hidden(message)
        return super().handle(message)

    def _next(self, tokens: list[int]) -> None:
        """Note the next token of every stream.

        Raises:
            ProtocolError: for tokens that were not asked for, or that there are not.
        """
        if len(tokens) != len(self._latest) or self.position >= self._end:
            raise ProtocolError("the provider sent tokens that it was not asked for")
        if not all(0 <= token < self._vocab for token in tokens):
            raise ProtocolError("the provider sent a token that the model does not have")
        self._latest = tokens
        self.position += 1
        self.take(tokens[self.authentic])

    def _attend(self, query: Query) -> PartialAttention | SummedAttention | MergedRows:
        spec = self._specs.get(query.layer)
        if spec is None or query.request != self._request or query.layer < self._inner_layers:
            raise ProtocolError(f"query for layer {query.layer} of request {query.request}: no keys here")
        k, _, positions = self.store.get(query.layer)
        q = query.q
        if q.shape != (k.shape[0], self._heads[query.layer], k.shape[3]):
            raise ProtocolError(f"query of shape {list(q.shape)} does not fit the keys of the prompt")
        if isinstance(query, MergeQuery) != (self._place is MergePlace.VAULT):
            raise ProtocolError("a query that is to be merged elsewhere than agreed")
        if self._guards:
            self._guards.check(query)
        # where nothing asks for the position, one query row sees every key
        position = positions[:1] if spec.sees_all else torch.full((1,), query.position, device=k.device)
        shard = self.store.partial(query.layer, q.to(k).unsqueeze(2), position, spec)
        return self._reply(shard, query)

    def _reply(self, shard: Partial, query: Query) -> PartialAttention | SummedAttention | MergedRows:
        """What crosses of one shard: rows ``[streams, heads]`` and ``[streams, heads, d]``."""
        address = query.request, query.layer, query.position
        if self._guards:
            shard = self._guards.noised(shard, query.layer)
        if isinstance(query, MergeQuery):
            return MergedRows(self._crossing(_merged(shard, query))[:, :, 0].to(self._wire_dtype), *address)
        m, g, a = shard if self._form is ReplyForm.MGA else Partial.summed(shard.log_weight, shard.a)
        m, g, a = self._crossing(m)[:, :, 0], self._crossing(g)[:, :, 0], self._crossing(a)[:, :, 0]
        if self._form is ReplyForm.LSE:
            return SummedAttention(m, a.to(self._wire_dtype), *address)
        return PartialAttention(m, g, a.to(self._wire_dtype), *address)

    def _crossing(self, part: Tensor) -> Tensor:
        return self._guards.rounded(part) if self._guards else part

    def _next_hidden(self, message: NextHidden) -> HiddenStates:
        if self._inner is None or message.request != self._request:
            raise ProtocolError(f"no layers run here for request {message.request}")
        position = torch.tensor([message.position], device=self.store.device)
        feed = torch.tensor([[token] for token in self._latest], device=self.store.device)
        hidden = self._inner.forward(LocalAttention(self.store), position, ids=feed)[:, -1]
        return HiddenStates(hidden.to(self._wire_dtype), message.position)


def _merged(shard: Partial, query: MergeQuery) -> Tensor:
    """Attention ``[streams, heads, 1, d]`` over a shard's keys and the asker's.

    Raises:
        ProtocolError: for attention of the asker's that does not fit, or is not finite.
    """
    fits = query.log_weight.shape == shard.m.shape[:2] and query.a.shape == (*shard.a.shape[:2], shard.a.shape[3])
    if not fits or not bool(query.a.isfinite().all() and query.log_weight.isfinite().all()):
        raise ProtocolError("a query came with attention that cannot be merged")
    theirs = Partial.summed(query.log_weight.to(shard.m).unsqueeze(2), query.a.to(shard.m).unsqueeze(2))
    return merge([shard, theirs])
