"""The extension engine: given this prefix, what would each candidate token produce at a layer?

Many attacks ask this one question. The engine answers it with the prefix's keys and values shared by the whole batch,
the forward truncated at the layer observed, batches sized to memory, and layer-0 tables of the whole vocabulary
computed once. Every call is charged to the attack.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from smd_research.core.guess import Spent
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention, SharedPrefixAttention, in_reach
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.learned_positions import LearnedPositions, learned_positions
from smd_research.models.partial_attention import merge, partial_attention
from smd_research.models.rotation import Rotation, rotation_of
from smd_research.models.stretch import Stretch
from smd_research.models.structure import blocks_of

BATCH_BYTES = 128 * 2**20
_PROBES = 8


@dataclass
class Prefix:
    """Keys and values of the tokens found so far, below one layer."""

    store: KVStore
    length: int = 0

    def copy(self) -> "Prefix":
        """An independent copy, for another branch of a search."""
        return Prefix(self.store.copy(), self.length)


@dataclass(frozen=True)
class Extension:
    """What candidates ``[c]`` produce after a prefix.

    Attributes:
        hidden: state of the new position after the last block run ``[c, width]``.
        own: for each block, the candidate's key ``[c, kv_heads, head_dim]`` (rotated) and value.
    """

    hidden: Tensor
    own: dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TokenTable:
    """What each vocabulary entry contributes at layer 0, at one position.

    Attributes:
        q: queries ``[vocab, heads, d]``.
        k: keys ``[vocab, kv_heads, d]``.
        v: values ``[vocab, kv_heads, dv]``.
        spec: constants of the layer's attention.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    spec: AttentionSpec


class _Enough(Exception):
    """What a pass was for is known; the rest of it is not computed."""


class _Capture:
    """Keeps layer 0's q, k, v and ends the pass."""

    def __init__(self) -> None:
        self.qkv: list[tuple[Tensor, Tensor, Tensor]] = []
        self.spec = AttentionSpec(1.0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.qkv.append((q[:, :, 0], k[:, :, 0], v[:, :, 0]))
        self.spec = spec
        raise _Enough


class _UpToValues(SharedPrefixAttention):
    """Ends the pass once the values of block ``last`` are known."""

    def __init__(self, prefix: KVStore, last: int) -> None:
        super().__init__(prefix)
        self._last = last

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        if layer < self._last:
            return super().attend(layer, q, k, v, positions, spec)
        self.own[layer] = (k, v)
        raise _Enough


class _ChainAttention:
    """Attention of candidates of several positions that follow a prefix and the first candidate of each before them.

    Args:
        prefix: keys and values of the tokens before all.
        counts: candidates of each position; the rows of all come one position after another.
    """

    def __init__(self, prefix: KVStore, counts: Sequence[int]) -> None:
        self._prefix = prefix
        self._leads = torch.cat([torch.arange(count) == 0 for count in counts])
        self.own: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.own[layer] = (k, v)
        queries, keys = positions[:, None], positions[None, :]
        itself = torch.eye(len(positions), dtype=torch.bool, device=positions.device)
        seen = itself | (self._leads.to(positions.device) & (keys < queries))
        reached = in_reach(queries, keys, spec)
        shards = [partial_attention(q, k, v, spec.scale, spec.softcap, seen if reached is None else seen & reached)]
        if self._prefix.length(layer):
            shards.append(self._prefix.partial(layer, q, positions, spec))
        return merge([*shards, *spec.sinks(q, v)]).to(v.dtype)


class ExtensionEngine:
    """Answers candidate questions about the state after ``upto`` blocks of a public model.

    Args:
        bundle: the public model.
        upto: number of blocks run; 0 asks about the embedding output.
    """

    def __init__(self, bundle: Bundle, upto: int) -> None:
        self.bundle = bundle
        self.upto = upto
        self.spent = Spent()
        self._model = HookedModel(bundle, None, upto)
        blocks = bundle.geometry.layers
        # an estimate for the ledger: blocks hold nearly all parameters besides the embedding
        in_blocks = sum(p.numel() for p in bundle.model.parameters()) - bundle.embedding.numel()
        self._flops = 2.0 * max(in_blocks, 0) * upto / blocks
        widest = 8 * bundle.geometry.width * bundle.embedding.element_size()
        self.batch = max(64, BATCH_BYTES // (widest * 4))

    def start(self) -> Prefix:
        """The empty prefix."""
        return Prefix(KVStore())

    @torch.inference_mode()
    def chain(self, prefix: Prefix, proposed: Sequence[Tensor]) -> list[Extension]:
        """What candidates at each of the next positions produce, in one pass, if all before them are as proposed.

        Args:
            prefix: the tokens found so far.
            proposed: for each position its candidates ``[c]``; those at later positions follow the first of each.

        Returns:
            An extension for each position. ``advance`` takes any of the first one, and of the next one as long as the
            first candidate was the token taken.
        """
        counts = [len(one) for one in proposed]
        attention, where = _ChainAttention(prefix.store, counts), torch.arange(len(counts), device=proposed[0].device)
        positions = prefix.length + where.repeat_interleave(torch.tensor(counts, device=where.device))
        hidden = self._model.forward(attention, positions, ids=torch.cat(list(proposed))[None])[0]
        self.spent += Spent(len(hidden), self._flops * len(hidden))
        own = {
            layer: [torch.split(part[0].transpose(0, 1), counts) for part in pair]
            for layer, pair in attention.own.items()
        }
        return [
            Extension(one, {layer: (k[place], v[place]) for layer, (k, v) in own.items()})
            for place, one in enumerate(torch.split(hidden, counts))
        ]

    @torch.inference_mode()
    def extend(self, prefix: Prefix, candidates: Tensor) -> Extension:
        """What candidates ``[c]`` produce at the position after ``prefix``."""
        chunks = [self._extend(prefix, chunk) for chunk in torch.split(candidates, self.batch)]
        if len(chunks) == 1:
            return chunks[0]
        hidden = torch.cat([chunk.hidden for chunk in chunks])
        own = {
            layer: (
                torch.cat([chunk.own[layer][0] for chunk in chunks]),
                torch.cat([chunk.own[layer][1] for chunk in chunks]),
            )
            for layer in chunks[0].own
        }
        return Extension(hidden, own)

    def _extend(self, prefix: Prefix, candidates: Tensor) -> Extension:
        attention = SharedPrefixAttention(prefix.store)
        positions = torch.tensor([prefix.length], device=candidates.device)
        hidden = self._model.forward(attention, positions, ids=candidates.unsqueeze(1))[:, 0]
        self.spent += Spent(len(candidates), self._flops * len(candidates))
        return Extension(hidden, {layer: (k[:, :, 0], v[:, :, 0]) for layer, (k, v) in attention.own.items()})

    @torch.inference_mode()
    def values(self, prefix: Prefix, candidates: Tensor) -> Tensor:
        """Values ``[c, kv_heads, head_dim]`` that candidates ``[c]`` have at the block after those that are run."""
        positions, values = torch.tensor([prefix.length], device=candidates.device), []
        for chunk in torch.split(candidates, self.batch):
            attention = _UpToValues(prefix.store, self.upto)
            with contextlib.suppress(_Enough):
                self._one_more.forward(attention, positions, ids=chunk.unsqueeze(1))
            values.append(attention.own[self.upto][1][:, :, 0])
            self.spent += Spent(len(chunk), self._flops * len(chunk))
        return torch.cat(values)

    @cached_property
    def _one_more(self) -> HookedModel:
        """The blocks that are run and the one after them."""
        return HookedModel(self.bundle, None, self.upto + 1)

    def advance(self, prefix: Prefix, token: int, found: Extension | None = None, index: int = 0) -> None:
        """Append a token to the prefix.

        Args:
            prefix: grows by one position.
            token: the token's id.
            found: the extension that already evaluated it, so that nothing is computed again.
            index: its row there.
        """
        if found is None:
            found = self._extend(prefix, torch.tensor([token], device=self.bundle.device))
            index = 0
        position = torch.tensor([prefix.length], device=self.bundle.device)
        for layer, (k, v) in found.own.items():
            prefix.store.append(layer, k[None, index, :, None], v[None, index, :, None], position)
        prefix.length += 1

    def in_batches(self, order: Tensor, first: int) -> Iterator[Tensor]:
        """Candidates in the order given: ``first`` of them, then batches four times as large each."""
        start, size = 0, first
        while start < len(order):
            yield order[start : start + size]
            start += size
            size = min(size * 4, self.batch)

    # -- tables of the whole vocabulary ------------------------------------------------------------------------------

    @cached_property
    def same_everywhere(self) -> bool:
        """Whether the embedding output is the same at all positions, as without learned ones."""
        probe = torch.arange(_PROBES, device=self.bundle.device) % self.bundle.geometry.vocab
        return torch.equal(self._embedded(0, probe), self._embedded(1, probe))

    @cached_property
    def one_table(self) -> bool:
        """Whether layer 0's table at position 0 tells those at all others: its keys can be turned there."""
        return self.same_everywhere and rotation_of(self.bundle, 1).known

    @torch.inference_mode()
    def computed(self, position: int, tokens: Tensor | None = None) -> TokenTable:
        """The table of ``layer0`` by running the layer on some tokens, or on the whole vocabulary, at a position."""
        if tokens is not None and not len(tokens):  # blocks take no empty batch
            return self._some(self.computed(position, self._vocabulary[:1]), tokens)
        model, capture = HookedModel(self.bundle, None, 1), _Capture()
        where = torch.tensor([position], device=self.bundle.device)
        asked = self._vocabulary if tokens is None else tokens.to(where.device)
        for chunk in torch.split(asked, self.batch):
            with contextlib.suppress(_Enough):
                model.forward(capture, where, ids=chunk.unsqueeze(1))
        q, k, v = (torch.cat(parts) for parts in zip(*capture.qkv, strict=True))
        return TokenTable(q, k, v, capture.spec)

    @cached_property
    def _table_at_zero(self) -> TokenTable:
        return self.computed(0)

    @cached_property
    def learned(self) -> LearnedPositions | None:
        """Layer 0's keys and values at all positions, of learned ones; None where the way is not known."""
        with torch.inference_mode():
            block = blocks_of(self.bundle.model, self.bundle.geometry.layers)[0]
            last = self.bundle.geometry.context - 1
            return learned_positions(self._embedded, self._from_states, self._in_place, block, self._vocabulary, last)

    def _in_place(self, position: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        table = self.computed(position, tokens)
        return table.k, table.v

    @torch.inference_mode()
    def _from_states(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Layer 0's keys and values of states ``[rows, width]``, as if at position 0."""
        model, capture, where = Stretch(self.bundle, 0, 1), _Capture(), torch.zeros_like(self._vocabulary[:1])
        for chunk in torch.split(states, self.batch):
            with contextlib.suppress(_Enough):
                model.forward(capture, where, hidden=chunk[:, None])
        _, keys, values = (torch.cat(parts) for parts in zip(*capture.qkv, strict=True))
        return keys, values

    @torch.inference_mode()
    def layer0(self, position: int, tokens: Tensor | None = None) -> TokenTable:
        """Layer 0's q, k, v of vocabulary entries at an absolute position.

        Args:
            position: absolute.
            tokens: ids ``[tokens]``; None means all.
        """
        base, rotation, where = self._entries(position, tokens), self._rotation(position), self._where(position)
        if rotation is None:
            return base
        q, k = rotation.queries(0, base.q.unsqueeze(-2), where), rotation.keys(0, base.k.unsqueeze(-2), where)
        return TokenTable(q.squeeze(-2), k.squeeze(-2), base.v, base.spec)

    @torch.inference_mode()
    def layer0_keys(self, position: int, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Layer 0's k and v alone ``[tokens, kv_heads, d]``, without the queries that take longest to turn.

        Args:
            position: absolute.
            tokens: ids ``[tokens]``; None means all.
        """
        base, rotation = self._entries(position, tokens), self._rotation(position)
        if rotation is None:
            return base.k, base.v
        return rotation.keys(0, base.k.unsqueeze(-2), self._where(position)).squeeze(-2), base.v

    def _entries(self, position: int, tokens: Tensor | None) -> TokenTable:
        """The table that those of a position are made of, of some tokens or all."""
        if not self.one_table:
            return self.computed(position, tokens)
        return self._table_at_zero if tokens is None else self._some(self._table_at_zero, tokens)

    @staticmethod
    def _some(table: TokenTable, rows: Tensor) -> TokenTable:
        return TokenTable(table.q[rows], table.k[rows], table.v[rows], table.spec)

    def _rotation(self, position: int) -> Rotation | None:
        """What turns that table to a position; None where it is there."""
        return rotation_of(self.bundle, 1) if position and self.one_table else None

    def _where(self, position: int) -> Tensor:
        return torch.full((1,), position, device=self.bundle.device)

    def embedded(self, position: int) -> Tensor:
        """Embedding output of every vocabulary entry at a position ``[vocab, width]`` (learned positions included)."""
        return self._embedded_at_zero if self.same_everywhere else self._embedded(position, self._vocabulary)

    @property
    def _vocabulary(self) -> Tensor:
        return torch.arange(self.bundle.geometry.vocab, device=self.bundle.device)

    @cached_property
    def _embedded_at_zero(self) -> Tensor:
        return self._embedded(0, self._vocabulary)

    @torch.inference_mode()
    def _embedded(self, position: int, tokens: Tensor) -> Tensor:
        """Embedding output ``[tokens, width]`` of some tokens at a position."""
        model = HookedModel(self.bundle, None, 0)
        where = torch.tensor([position], device=self.bundle.device)
        return torch.cat(
            [model.forward(LocalAttention(), where, ids=c.unsqueeze(1))[:, 0] for c in torch.split(tokens, self.batch)]
        )


class LanguagePrior:
    """The public model as a prior over next tokens: a batch of hypotheses, cached, advanced as they grow.

    Attributes:
        length: tokens fed so far.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._model = HookedModel(bundle)
        self._attention = LocalAttention()
        self.length = 0

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token a hypothesis ``[b]``; returns next-token log probabilities ``[b, vocab]``."""
        return self.feed(tokens.unsqueeze(1))

    @torch.inference_mode()
    def feed(self, tokens: Tensor) -> Tensor:
        """Feed the next tokens of each hypothesis ``[b, n]``; returns log probabilities of what follows them."""
        where = torch.arange(self.length, self.length + tokens.shape[1], device=tokens.device)
        logits = self._model.forward(self._attention, where, ids=tokens, last_only=True)[:, -1]
        self.length += tokens.shape[1]
        return torch.log_softmax(logits.float(), dim=-1)

    def select(self, index: Tensor) -> None:
        """Keep the hypotheses ``index [b]``, in that order, repetitions allowed."""
        self._attention.store.select(index)
