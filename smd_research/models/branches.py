"""Several continuations of one text: what they share is computed and kept once.

The shared prefix holds one row of keys and values for all branches; what a branch adds stands in a row of its own. The
two are shards of the same attention (Theorem 1 of arXiv 2409.19134), so a branch's logits are those of its whole text.
"""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from smd_research.models.attention import AttentionRuntime, AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial, merge


def over_prefix(prefix: KVStore, layer: int, q: Tensor, positions: Tensor, spec: AttentionSpec) -> Partial:
    """Attention of many branches' queries ``[batch, heads, rows, d]`` over a prefix stored once, as one shard.

    The branches become rows of a single batch entry, so that the prefix is never copied.
    """
    batch, heads, rows, d = q.shape
    flat = q.transpose(0, 1).reshape(1, heads, batch * rows, d)
    shard = prefix.partial(layer, flat, positions.repeat(batch), spec)
    m, g = (part.view(heads, batch, rows).transpose(0, 1) for part in (shard.m, shard.g))
    return Partial(m, g, shard.a.view(heads, batch, rows, d).transpose(0, 1))


class BranchAttention(AttentionRuntime):
    """Causal attention of branches ``[batch, ...]`` over a shared prefix and over what each of them added."""

    def __init__(self, prefix: KVStore) -> None:
        self.prefix = prefix
        self.own = KVStore()
        self.specs: dict[int, AttentionSpec] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.specs[layer] = spec
        self.own.append(layer, k, v, positions)
        itself = self.own.partial(layer, q, positions, spec)
        if self.prefix.length(layer) == 0:
            return merge([itself, *spec.sinks(q, v)]).to(v.dtype)
        return merge([over_prefix(self.prefix, layer, q, positions, spec), itself, *spec.sinks(q, v)]).to(v.dtype)


class Branches:
    """Continuations of one prefix, fed side by side.

    Args:
        bundle: the model.
        prefix: token ids of what all branches share ``[p]``; at least one.
        count: number of branches.
    """

    def __init__(self, bundle: Bundle, prefix: Sequence[int], count: int) -> None:
        self._bundle = bundle
        self._model = HookedModel(bundle)
        shared = LocalAttention(KVStore(capacity=len(prefix)))
        ids = torch.tensor([list(prefix)], device=bundle.device)
        positions = torch.arange(len(prefix), device=bundle.device)
        first = self._model.forward(shared, positions, ids=ids, last_only=True)[:, -1]
        self.attention = BranchAttention(shared.store)
        self.logits = first.expand(count, -1)
        """Next-token logits of every branch ``[count, vocab]``."""
        self.length = len(prefix)
        """Tokens of each branch, the prefix included."""

    def feed(self, tokens: Tensor) -> None:
        """Append ``tokens [count, rows]``, as many to each branch; ``logits`` follows."""
        positions = torch.arange(self.length, self.length + tokens.shape[1], device=tokens.device)
        self.logits = self._model.forward(self.attention, positions, ids=tokens, last_only=True)[:, -1]
        self.length += tokens.shape[1]

    def fork(self, index: Tensor) -> "Branches":
        """Independent continuations of the branches ``index [count]``, repetitions allowed; the prefix stays shared."""
        twin = copy(self)
        twin.attention = BranchAttention(self.attention.prefix)
        twin.attention.own = self.attention.own.copy()
        twin.attention.own.select(index)
        twin.logits = self.logits[index]
        return twin
