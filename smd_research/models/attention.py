"""Attention runtimes: what happens in place of a model's own attention.

Causality and sliding windows follow from absolute positions, on whichever side of a boundary the keys are.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from smd_research.models.partial_attention import Partial, merge, partial_attention


@dataclass(frozen=True)
class AttentionSpec:
    """A layer's attention besides its projections.

    Attributes:
        scale: factor of the scores.
        softcap: ``cap * tanh(s / cap)`` of the scores, or None.
        window: how many tokens back a query sees, itself included; None sees all.
        chunk: positions are cut into chunks of so many tokens, and a query sees its own chunk only; None sees all.
        sink: ``[heads]``, the logit of an attention sink, a weight: part of every softmax, with no value. Whoever
            merges the shards counts it, once.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None
    chunk: int | None = None
    sink: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def sees_all(self) -> bool:
        """Whether a query sees everything before it, wherever it stands."""
        return self.window is None and self.chunk is None

    def sinks(self, q: Tensor, v: Tensor) -> list[Partial]:
        """The sink as a shard for queries ``[batch, heads, rows, d]`` and values ``[..., dv]``; where there is one."""
        if self.sink is None:
            return []
        m = self.sink.float()[None, :, None].expand(q.shape[:3])
        return [Partial(m, torch.ones_like(m), v.new_zeros(*q.shape[:3], v.shape[-1]))]


class AttentionRuntime(Protocol):
    """Computes the attention of one layer."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        """Attention output ``[batch, heads, rows, dv]``.

        Args:
            layer: index of the block in the whole model.
            q: queries ``[batch, heads, rows, d]``, rotated.
            k: keys ``[batch, kv_heads, rows, d]``, rotated.
            v: values ``[batch, kv_heads, rows, dv]``; ``dv`` is ``d`` but for latent attention (DeepSeek-V2).
            positions: absolute positions ``[rows]``.
            spec: the layer's constants.
        """


class QueryFirstRuntime(AttentionRuntime, Protocol):
    """A runtime that wants a layer's queries before its keys and values are computed."""

    def enter(self) -> None:
        """A layer's attention begins."""

    def ask(self, layer: int, q: Tensor, spec: AttentionSpec) -> None:
        """Take the layer's queries ``[batch, heads, rows, d]``, rotated; ``attend`` follows with the rest."""


def visible(query_positions: Tensor, key_positions: Tensor, spec: AttentionSpec) -> Tensor | None:
    """Which keys a query may see: ``[rows, keys]``, or None when all of them, as for one new token that sees all.

    A key is seen when it is not in the future and in reach.

    Args:
        query_positions: absolute ``[rows]``.
        key_positions: absolute ``[keys]``.
        spec: of the layer.
    """
    if len(query_positions) == 1 and spec.sees_all:
        return None
    queries, keys = query_positions[:, None], key_positions[None, :]
    seen = queries >= keys
    reached = in_reach(queries, keys, spec)
    return seen if reached is None else seen & reached


def in_reach(queries: Tensor, keys: Tensor, spec: AttentionSpec) -> Tensor | None:
    """Whether keys are in the window and chunk of queries, by positions that broadcast; None where all are."""
    if spec.sees_all:
        return None
    reached = torch.ones_like(queries - keys, dtype=torch.bool)
    if spec.window is not None:
        reached &= queries - keys < spec.window
    if spec.chunk is not None:
        reached &= queries // spec.chunk == keys // spec.chunk
    return reached


class KVStore:
    """Keys, values and their absolute positions of some layers, in buffers that grow by doubling."""

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}
        self._lengths: dict[int, int] = {}
        self._positions: dict[int, Tensor] = {}
        self._views: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def append(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> None:
        """Add rows ``[batch, kv_heads, rows, d]`` (values may have a width of their own) at positions ``[rows]``."""
        start = self._lengths.get(layer, 0)
        end = start + k.shape[2]
        self._reserve(layer, k, v, end)
        keys, values = self._buffers[layer]
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        self._positions[layer][start:end] = positions
        self._lengths[layer] = end

    def _reserve(self, layer: int, k: Tensor, v: Tensor, needed: int) -> None:
        old = self._buffers.get(layer)
        if old is not None and old[0].shape[2] >= needed:
            return
        capacity = max(self._capacity, needed if old is None else 2 * needed)
        grown = (k.new_empty(*k.shape[:2], capacity, k.shape[3]), v.new_empty(*v.shape[:2], capacity, v.shape[3]))
        positions = torch.empty(capacity, dtype=torch.long, device=k.device)
        if old is not None:
            filled = self._lengths[layer]
            for new, previous in zip(grown, old, strict=True):
                new[:, :, :filled] = previous[:, :, :filled]
            positions[:filled] = self._positions[layer][:filled]
        self._buffers[layer] = grown
        self._views.clear()
        self._positions[layer] = positions

    def length(self, layer: int) -> int:
        """Rows held for a layer."""
        return self._lengths.get(layer, 0)

    def get(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys ``[batch, kv_heads, rows, d]``, values ``[..., dv]`` and positions ``[rows]`` of a layer, as views."""
        end = self._lengths[layer]
        views = self._views.get(layer)
        if views is None or views[0].shape[2] != end:
            keys, values = self._buffers[layer]
            views = self._views[layer] = keys[:, :, :end], values[:, :, :end], self._positions[layer][:end]
        return views

    @property
    def dtype(self) -> torch.dtype:
        """Type of the keys and values."""
        return next(iter(self._buffers.values()))[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the keys and values are."""
        return next(iter(self._buffers.values()))[0].device

    @property
    def streams(self) -> int:
        """Batch entries held."""
        return next(iter(self._buffers.values()))[0].shape[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that hold rows."""
        return tuple(self._lengths)

    def forget_below(self, layer: int) -> None:
        """Forget all layers before ``layer``."""
        self._views.clear()
        for lower in [held for held in self._buffers if held < layer]:
            del self._buffers[lower], self._lengths[lower], self._positions[lower]

    def drop_first(self, rows: int, from_layer: int = 0) -> None:
        """Forget the first ``rows`` rows of every layer from ``from_layer`` on."""
        self._views.clear()
        for layer, (keys, values) in self._buffers.items():
            if layer < from_layer:
                continue
            end = self._lengths[layer]
            self._buffers[layer] = keys[:, :, rows:end].clone(), values[:, :, rows:end].clone()
            self._positions[layer] = self._positions[layer][rows:end].clone()
            self._lengths[layer] = end - rows

    def select(self, index: Tensor) -> None:
        """Keep the batch entries ``index``, in that order, repetitions allowed."""
        self._views.clear()
        for layer, (keys, values) in self._buffers.items():
            self._buffers[layer] = keys[index], values[index]

    def copy(self) -> "KVStore":
        """An independent copy."""
        twin = KVStore(self._capacity)
        twin._buffers = {layer: (keys.clone(), values.clone()) for layer, (keys, values) in self._buffers.items()}
        twin._lengths = dict(self._lengths)
        twin._positions = {layer: positions.clone() for layer, positions in self._positions.items()}
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of the rows held."""
        total = 0
        for layer, held in self._buffers.items():
            for x in held:
                total += x[:, :, : self._lengths[layer]].numel() * x.element_size()
        return total

    def partial(self, layer: int, q: Tensor, positions: Tensor, spec: AttentionSpec) -> Partial:
        """Attention of ``q [batch, heads, rows, d]`` over the rows held, as one shard."""
        k, v, key_positions = self.get(layer)
        return partial_attention(q, k, v, spec.scale, spec.softcap, visible(positions, key_positions, spec))


class LocalAttention(AttentionRuntime):
    """Ordinary causal attention over a store of one's own.

    Attributes:
        store: keys and values.
        specs: constants of each layer seen.
        heads: its query heads.
    """

    def __init__(self, store: KVStore | None = None) -> None:
        self.store = store or KVStore()
        self.specs: dict[int, AttentionSpec] = {}
        self.heads: dict[int, int] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.specs[layer], self.heads[layer] = spec, q.shape[1]
        self.store.append(layer, k, v, positions)
        keys, values, key_positions = self.store.get(layer)
        if spec.softcap or spec.sink is not None:
            shard = partial_attention(
                q, keys, values, spec.scale, spec.softcap, visible(positions, key_positions, spec)
            )
            return merge([shard, *spec.sinks(q, v)]).to(v.dtype)
        mask = visible(positions, key_positions, spec)
        grouped = q.shape[1] != keys.shape[1]
        return functional.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, scale=spec.scale, enable_gqa=grouped
        )


class SharedPrefixAttention(AttentionRuntime):
    """Attention of many one-token candidates after one prefix, whose keys and values are stored once.

    The candidate's own key is a second shard, so that the prefix is never copied for the batch. What each candidate
    adds to a layer is kept in ``own`` for the layers asked for.
    """

    def __init__(self, prefix: KVStore) -> None:
        self.prefix = prefix
        self.own: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.own[layer] = (k, v)
        itself = partial_attention(q, k, v, spec.scale, spec.softcap)
        if self.prefix.length(layer) == 0:
            return merge([itself, *spec.sinks(q, v)]).to(v.dtype)
        # one prefix for all candidates: the batch becomes rows of a single batch entry
        rows = q.transpose(0, 2)
        shard = self.prefix.partial(layer, rows, positions.expand(rows.shape[2]), spec)
        past = Partial(*(part.transpose(0, 2) for part in shard))
        return merge([past, itself, *spec.sinks(q, v)]).to(v.dtype)
