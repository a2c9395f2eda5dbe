"""Keys and values of a batch of streams of different lengths, one padded buffer a layer.

Streams come and go between steps; in a step every stream adds one row. Rows that a stream does not have are masked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smd_research.models.attention import AttentionSpec, KVStore, in_reach
from smd_research.models.partial_attention import NEGATIVE_INFINITY, Partial, summed_attention

_GROWTH = 64


class RaggedKV:
    """The decoding side's cache of many streams.

    Args:
        device: where positions are kept; keys and values stay where they come from.
    """

    def __init__(self, device: torch.device) -> None:
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}
        self._positions = torch.zeros(0, 0, dtype=torch.long, device=device)
        self._lengths: list[int] = []
        self._slots = torch.zeros(0, dtype=torch.long, device=device)
        self._masks: dict[AttentionSpec, Tensor | None] = {}

    @property
    def streams(self) -> int:
        """Streams held."""
        return len(self._lengths)

    def admit(self, streams: int, prefix: KVStore | None = None) -> None:
        """Add ``streams`` streams at the end, each of which begins with the rows of ``prefix`` (batch of 1 or all)."""
        first = self.streams
        length = prefix.length(prefix.layers[0]) if prefix and prefix.layers else 0
        lengths = [*self._lengths, *[length] * streams]
        self._reserve(len(lengths), max(lengths) + 1)
        self._lengths = lengths
        if prefix is None or not length:
            return
        for layer in prefix.layers:
            keys, values, positions = prefix.get(layer)
            own_keys, own_values = self._buffers_like(layer, keys, values)
            own_keys[first : self.streams, :, :length] = keys
            own_values[first : self.streams, :, :length] = values
            self._positions[first : self.streams, :length] = positions

    def keep(self, index: Sequence[int]) -> None:
        """Keep the streams ``index``, in that order."""
        chosen = torch.tensor(list(index), dtype=torch.long, device=self._positions.device)
        self._lengths = [self._lengths[i] for i in index]
        self._positions = self._positions[chosen]
        for layer, (keys, values) in self._buffers.items():
            self._buffers[layer] = keys[chosen], values[chosen]

    def extract(self, first: int, streams: int, *, but_last: bool = False) -> KVStore:
        """A copy of what equally long streams hold, for a later turn of their conversation.

        Args:
            first: the first of them.
            streams: how many.
            but_last: leave the newest row out.
        """
        store = KVStore()
        length = self._lengths[first] - but_last
        for layer, (keys, values) in self._buffers.items():
            rows = slice(first, first + streams)
            positions = self._positions[first, :length]
            store.append(layer, keys[rows, :, :length].clone(), values[rows, :, :length].clone(), positions.clone())
        return store

    def begin(self, positions: Tensor) -> None:
        """Open one new row in every stream, at absolute positions ``[streams]``."""
        self._reserve(self.streams, max(self._lengths) + 1)
        self._slots = torch.tensor(self._lengths, device=self._positions.device)
        self._positions[torch.arange(self.streams), self._slots] = positions
        self._lengths = [length + 1 for length in self._lengths]
        self._masks = {}

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Fill the open row of a layer: ``k`` ``[streams, kv_heads, 1, d]``, ``v`` ``[streams, kv_heads, 1, dv]``."""
        keys, values = self._buffers_like(layer, k, v)
        if min(self._lengths) == max(self._lengths):
            slot = self._lengths[0] - 1
            keys[: self.streams, :, slot] = k[:, :, 0]
            values[: self.streams, :, slot] = v[:, :, 0]
            return
        rows = torch.arange(self.streams, device=k.device)
        keys[rows, :, self._slots] = k[:, :, 0]
        values[rows, :, self._slots] = v[:, :, 0]

    def partial(self, layer: int, q: Tensor, positions: Tensor, spec: AttentionSpec) -> Partial:
        """Attention of ``q [streams, heads, 1, d]`` at ``positions [streams]`` over each stream's own rows, summed."""
        keys, values = self._buffers[layer]
        longest = max(self._lengths)
        k, v = keys[: self.streams, :, :longest], values[: self.streams, :, :longest]
        if spec not in self._masks:
            self._masks[spec] = self._mask(positions, longest, spec)
        return summed_attention(q, k, v, spec.scale, spec.softcap, self._masks[spec])

    @property
    def nbytes(self) -> int:
        """Bytes of the rows held."""
        rows = sum(self._lengths)
        held = (x for pair in self._buffers.values() for x in pair)
        return sum(rows * x.shape[1] * x.shape[3] * x.element_size() for x in held)

    def _mask(self, positions: Tensor, longest: int, spec: AttentionSpec) -> Tensor | None:
        """Minus infinity for rows that a stream's query must not see ``[streams, 1, 1, longest]``; None hides none."""
        if spec.sees_all and min(self._lengths) == longest:
            return None
        lengths = torch.tensor(self._lengths, device=positions.device)
        seen = torch.arange(longest, device=positions.device)[None] < lengths[:, None]
        reached = in_reach(positions[:, None], self._positions[: self.streams, :longest], spec)
        if reached is not None:
            seen &= reached
        dtype = next(iter(self._buffers.values()))[0].dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, NEGATIVE_INFINITY)
        return mask[:, None, None]

    def _reserve(self, streams: int, length: int) -> None:
        rows, capacity = self._positions.shape
        if streams <= rows and length <= capacity:
            return
        rows = max(streams, rows)
        capacity = capacity if length <= capacity else length + _GROWTH
        positions, buffers = _grown(self._positions, (rows, capacity)), {}
        for layer, (keys, values) in self._buffers.items():
            shape = (rows, keys.shape[1], capacity)
            buffers[layer] = _grown(keys, (*shape, keys.shape[3])), _grown(values, (*shape, values.shape[3]))
        # all or nothing: where memory does not suffice, what is held stays as it is
        self._positions, self._buffers = positions, buffers

    def _buffers_like(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._buffers:
            rows, capacity = self._positions.shape
            # zeros, not garbage: a masked row still enters a product, and 0 times NaN is NaN
            shape = (rows, k.shape[1], capacity)
            self._buffers[layer] = k.new_zeros(*shape, k.shape[3]), v.new_zeros(*shape, v.shape[3])
        return self._buffers[layer]


def _grown(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    new = old.new_zeros(shape)
    new[tuple(slice(0, size) for size in old.shape)] = old
    return new
