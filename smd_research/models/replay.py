"""What the provider of secure multi-party decoding computed by itself, computed again from its record.

A view holds messages only. The provider's own values are functions of them and of the public weights: with the vault's
replies as recorded, one causal pass over the generated tokens gives every hidden state and the logits of every step.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smd_research.boundary.messages import HiddenStates, PartialAttention, StartDecode, Tokens
from smd_research.boundary.view import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.models.attention import AttentionRuntime, AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial, merge


class ReplayAttention(AttentionRuntime):
    """The provider's attention over again: its own keys as they come, the vault's shards as recorded.

    Args:
        shards: for each layer the vault's partial attention at all rows to come, ``[1, heads, rows(, d)]``.
        store: keys and values that the provider held before the first step (of a public prefix).
    """

    def __init__(self, shards: Mapping[int, Partial], store: KVStore) -> None:
        self._shards = shards
        self._store = store

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self._store.append(layer, k, v, positions)
        own = self._store.partial(layer, q, positions, spec)
        return merge([self._shards[layer], own, *spec.sinks(q, v)]).to(v.dtype)


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


def _replies(view: AdversaryView) -> dict[tuple[int, int], PartialAttention]:
    """The vault's replies by position and layer."""
    return {(reply.position, reply.layer): reply for reply in view.of(PartialAttention)}


def _stacked(replies: list[PartialAttention], device: torch.device) -> Partial:
    """Replies of successive positions as rows of one shard, ``[1, heads, rows(, d)]``."""
    m, g, a = (torch.stack([getattr(reply, name)[0] for reply in replies], 1) for name in ("m", "g", "a"))
    return Partial(*(part[None].to(device) for part in (m, g, a)))


def _prefix(bundle: Bundle, start: StartDecode, first_layer: int) -> KVStore:
    """Keys and values of the public tokens, which the provider prefilled by itself."""
    store = KVStore()
    if len(start.public):
        ids = start.public.long().to(bundle.device)[None]
        HookedModel(bundle).forward(LocalAttention(store), torch.arange(ids.shape[1], device=bundle.device), ids=ids)
        store.forget_below(first_layer)
    return store
