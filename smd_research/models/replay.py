"""What the provider of secure multi-party decoding computed by itself, computed again from its record.

A view holds messages only. The provider's own values are functions of them and of the public weights: with the vault's
replies as recorded, one causal pass over the generated tokens gives every hidden state and the logits of every step.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smd_research.boundary.messages import (
    HiddenStates,
    MergedRows,
    PartialAttention,
    StartDecode,
    SummedAttention,
    Tokens,
)
from smd_research.boundary.view import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.models.attention import AttentionRuntime, AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial, merge


class ReplayAttention(AttentionRuntime):
    """The provider's attention over again: its own keys as they come, the vault's shards as recorded.

    Args:
        shards: for each layer the vault's partial attention at all rows to come, ``[1, heads, rows(, d)]``, or, where
            the vault merged, the merged rows ``[1, heads, rows, d]``.
        store: keys and values that the provider held before the first step (of a public prefix).
    """

    def __init__(self, shards: Mapping[int, Partial | Tensor], store: KVStore) -> None:
        self._shards = shards
        self._store = store

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        shard = self._shards[layer]
        if isinstance(shard, Tensor):
            return shard.to(v.dtype)
        self._store.append(layer, k, v, positions)
        own = self._store.partial(layer, q, positions, spec)
        return merge([shard, own, *spec.sinks(q, v)]).to(v.dtype)


@torch.inference_mode()
def replayed_logits(bundle: Bundle, view: AdversaryView) -> Tensor:
    """The logits that the provider computed, ``[steps, vocab]`` (fp32, CPU).

    Args:
        bundle: the public model.
        view: of one request and one stream (``view.stream(b)``).

    Returns:
        Row ``s`` is the law from which output token ``s + 1`` was drawn; the first output token's logits are the
        vault's. No row where the provider was never asked to decode.

    Raises:
        NotApplicableError: where the record does not determine them: several streams, or a later turn of a
            conversation, whose earlier turns are other records.
    """
    replies = _replies(view)
    if not replies:
        return torch.empty(0, bundle.geometry.vocab)
    starts = view.of(StartDecode)
    if view.streams != 1 or len(starts) != 1 or starts[0].turn > 1:
        raise NotApplicableError("logits are computed again for one stream of a request that stands alone")
    start, device = starts[0], bundle.device
    positions = sorted({position for position, _ in replies})
    layers = sorted({layer for _, layer in replies})
    positions = [p for p in positions if all((p, layer) in replies for layer in layers)]  # a request may break off
    shards = {layer: _stacked([replies[p, layer] for p in positions], device) for layer in layers}
    store = _prefix(bundle, start, layers[0])
    where = torch.tensor(positions, device=device)
    attention = ReplayAttention(shards, store)
    if layers[0] > 0:  # the vault ran the first layers and sent what came out
        states = {message.position: message.hidden for message in view.of(HiddenStates)}
        hidden = torch.stack([states[p].reshape(1, -1)[0] for p in positions]).to(device, bundle.dtype)
        return HookedModel(bundle, layers[0]).forward(attention, where, hidden=hidden[None])[0].float().cpu()
    tokens = torch.cat([start.first, *(message.ids for message in view.of(Tokens))])[: len(positions)]
    ids = tokens.long().to(device)[None]
    return HookedModel(bundle).forward(attention, where, ids=ids)[0].float().cpu()


def _replies(view: AdversaryView) -> dict[tuple[int, int], Partial | Tensor]:
    """The vault's replies by position and layer: shards ``[heads(, d)]``, or merged rows ``[heads, d]``."""
    found: dict[tuple[int, int], Partial | Tensor] = {}
    for _, message in view.messages:
        if isinstance(message, PartialAttention):
            found[message.position, message.layer] = Partial(message.m[0], message.g[0], message.a[0])
        elif isinstance(message, SummedAttention):
            found[message.position, message.layer] = Partial.summed(message.log_weight[0], message.a[0])
        elif isinstance(message, MergedRows):
            found[message.position, message.layer] = message.a[0]
    return found


def _stacked(replies: list[Partial | Tensor], device: torch.device) -> Partial | Tensor:
    """Replies of successive positions as rows, ``[1, heads, rows(, d)]``."""
    rows = [reply for reply in replies if isinstance(reply, Tensor)]
    if rows:
        return torch.stack(rows, 1)[None].to(device)
    shards = [reply for reply in replies if isinstance(reply, Partial)]
    return Partial(*(torch.stack(parts, 1)[None].to(device) for parts in zip(*shards, strict=True)))


def _prefix(bundle: Bundle, start: StartDecode, first_layer: int) -> KVStore:
    """Keys and values of the public tokens, which the provider prefilled by itself."""
    store = KVStore()
    if len(start.public):
        ids = start.public.long().to(bundle.device)[None]
        HookedModel(bundle).forward(LocalAttention(store), torch.arange(ids.shape[1], device=bundle.device), ids=ids)
        store.forget_below(first_layer)
    return store
