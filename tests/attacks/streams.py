"""Transcripts of several streams as a provider records them, made without a deployment: what the judges read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smd_research.boundary import AdversaryView
from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import Message, PartialAttention, Query, StartDecode, Tokens, token_tensor
from smd_research.core.observable import Observable
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial, merge

SHOWS = frozenset({Observable.QUERIES, Observable.PARTIAL_ATTENTION, Observable.OUTPUT_TOKENS, Observable.LENGTH})
DOWN, UP = Direction.TO_UNTRUSTED, Direction.TO_TRUSTED


class _Transcribed:
    """Attention over the vault's keys and the streams' own, with every exchange written down."""

    def __init__(self, vault: KVStore, request: int) -> None:
        self.messages: list[tuple[Direction, Message]] = []
        self._vault, self._own, self._request = vault, KVStore(), request

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        position = int(positions[0])
        reply = self._vault.partial(layer, q, positions, spec)
        self.messages.append((UP, Query(q[:, :, 0], self._request, layer, position)))
        answer = PartialAttention(reply.m[:, :, 0], reply.g[:, :, 0], reply.a[:, :, 0], self._request, layer, position)
        self.messages.append((DOWN, answer))
        self._own.append(layer, k, v, positions)
        return merge([Partial(*reply), self._own.partial(layer, q, positions, spec)]).to(v.dtype)


def prefilled(bundle: Bundle, prompts: Sequence[Sequence[int]]) -> tuple[KVStore, Tensor]:
    """Keys and values of every prompt in full, and the first generated tokens ``[B]``."""
    attention = LocalAttention()
    ids = torch.tensor([list(prompt) for prompt in prompts])
    logits = HookedModel(bundle).forward(attention, torch.arange(ids.shape[1]), ids=ids, last_only=True)
    return attention.store, logits[:, -1].argmax(-1)


def multiplexed(bundle: Bundle, prompts: Sequence[Sequence[int]], real: int) -> tuple[KVStore, Tensor]:
    """The released code's construction: tokens that all prompts share keep the keys that the real prompt gave them."""
    store, first = prefilled(bundle, prompts)
    ids = torch.tensor([list(prompt) for prompt in prompts])
    common = (ids == ids[:1]).all(0)
    for layer in store.layers:
        for part in store.get(layer)[:2]:
            part[:, :, common] = part[real, None][:, :, common].clone()
    return store, first


def transcript(
    bundle: Bundle, vault: KVStore, first: Tensor, steps: int, request: int = 0, pause_at: int | None = None
) -> tuple[tuple[tuple[Direction, Message], ...], tuple[tuple[int, ...], ...]]:
    """Messages of one request and every stream's output."""
    length = vault.length(0)
    sampling = torch.tensor([0.0, 1.0])
    start = StartDecode(first.int(), token_tensor([]), sampling, request, length, steps, 0, 0)
    runtime, model = _Transcribed(vault, request), HookedModel(bundle)
    runtime.messages.append((DOWN, start))
    outputs, tokens = [first], first
    for step in range(steps):
        position = torch.tensor([length + step])
        tokens = model.forward(runtime, position, ids=tokens[:, None])[:, -1].argmax(-1)
        runtime.messages.append((UP, Tokens(tokens.int())))
        outputs.append(tokens)
    return tuple(runtime.messages), tuple(tuple(row) for row in torch.stack(outputs, 1).tolist())


@torch.inference_mode()
def view_of(
    bundle: Bundle, requests: Sequence[Sequence[Sequence[int]]], steps: int = 6, real: int | None = None
) -> AdversaryView:
    """What a provider sees of one or more requests.

    Args:
        bundle: the model.
        requests: for each request its prompts, one a stream.
        steps: tokens generated after the first.
        real: index of the real stream where the keys are built the released code's way; None builds each in full.
    """
    messages: tuple[tuple[Direction, Message], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()
    for number, prompts in enumerate(requests):
        vault, first = prefilled(bundle, prompts) if real is None else multiplexed(bundle, prompts, real)
        more, outputs = transcript(bundle, vault, first, steps, number)
        messages += more
    return AdversaryView(messages, SHOWS, len(requests[0][0]), outputs)
