"""Secure multi-party decoding (SMD, later SPD; arXiv 2409.19134): one user, exact.

A trusted vault prefills the prompt and keeps its keys and values; the provider decodes. In each layer the provider
sends its query, the vault answers with the attention over the prompt's keys (m, g, A), and the provider merges it with
the attention over the generated tokens' keys (Theorem 1). The provider never receives the prompt's ids, keys or values;
after the prefill the vault touches no weight.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from smd_research.boundary import Boundary, Channel
from smd_research.boundary.messages import (
    Done,
    Message,
    PartialAttention,
    Query,
    StartDecode,
    Tokens,
    token_tensor,
)
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.core.observable import Observable
from smd_research.defenses.base import Client, Defense, Deployment, Memory, Provider
from smd_research.mechanisms.partial_attention import Partial, merge
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.sources import DTYPES

SHOWS = frozenset({Observable.QUERIES, Observable.PARTIAL_ATTENTION, Observable.OUTPUT_TOKENS, Observable.LENGTH})


class Vault(Client):
    """The trusted party: the prompt's keys and values, and nothing of the model.

    Args:
        wire_dtype: type in which attention crosses; ``m`` and ``g`` always cross in fp32.
    """

    def __init__(self, wire_dtype: torch.dtype) -> None:
        super().__init__()
        self._wire_dtype = wire_dtype
        self.store = KVStore()
        self._specs: dict[int, AttentionSpec] = {}

    def prefill(self, model: HookedModel, ids: Sequence[int], device: torch.device) -> Tensor:
        """Process the whole prompt with borrowed weights, keep its keys and values.

        Returns:
            Logits ``[vocab]`` of the first generated token.
        """
        self.store = KVStore(capacity=len(ids))
        attention = LocalAttention(self.store)
        positions = torch.arange(len(ids), device=device)
        logits = model.forward(attention, positions, ids=torch.tensor([list(ids)], device=device), last_only=True)
        self._specs = attention.specs
        return logits[0, -1]

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, Query):
            return super().handle(message)
        spec = self._specs.get(message.layer)
        if spec is None:
            raise ProtocolError(f"query for layer {message.layer}, which this prompt has no keys for")
        k, _, _ = self.store.get(message.layer)
        if message.q.dim() != 2 or message.q.shape[1] != k.shape[3] or message.q.shape[0] % k.shape[1]:
            raise ProtocolError(f"query of shape {list(message.q.shape)} does not fit the keys of the prompt")
        q = message.q.to(k)[None, :, None]
        position = torch.tensor([message.position], device=k.device) if spec.window else self._any_position(k)
        shard = self.store.partial(message.layer, q, position, spec)
        return PartialAttention(shard.m[0, :, 0], shard.g[0, :, 0], shard.a[0, :, 0].to(self._wire_dtype))

    @staticmethod
    def _any_position(k: Tensor) -> Tensor:
        """A stand-in where no window asks for the position: one query row sees every key."""
        return k.new_zeros(1, dtype=torch.long)


class RemoteAttention:
    """The provider's attention: its own output keys here, the prompt's at the vault."""

    def __init__(self, channel: Channel, store: KVStore, wire_dtype: torch.dtype, position: int) -> None:
        self._channel = channel
        self._store = store
        self._wire_dtype = wire_dtype
        self.position = position

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        reply = self._channel.post(Query(q[0, :, 0].to(self._wire_dtype), layer, self.position))
        self._store.append(layer, k, v, positions)
        own = self._store.partial(layer, q, positions, spec)
        answer = reply()
        if not isinstance(answer, PartialAttention):
            raise ProtocolError(f"the vault answered a query with {type(answer).__name__}")
        theirs = Partial(*(part.to(q.device)[None, :, None] for part in (answer.m, answer.g, answer.a)))
        return merge([theirs, own]).to(v.dtype)


class DecodeService(Provider):
    """The untrusted party: holds the weights and the generated tokens' keys and values."""

    def __init__(self, bundle: Bundle, wire_dtype: torch.dtype, channel: Channel) -> None:
        super().__init__(channel, bundle.end_id)
        self._bundle = bundle
        self._model = HookedModel(bundle)
        self._wire_dtype = wire_dtype
        self._store = KVStore()

    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, StartDecode):
            raise ProtocolError(f"the decode service does not serve {type(message).__name__}")
        self._store = KVStore()
        attention = RemoteAttention(self.channel, self._store, self._wire_dtype, message.position)
        token = int(message.first[0])
        for _ in range(message.max_new_tokens):
            feed = torch.tensor([[token]], device=self._bundle.device)
            positions = torch.tensor([attention.position], device=self._bundle.device)
            token = self.choose(self._model.forward(attention, positions, ids=feed)[0, -1])
            self.channel.notify(Tokens(token_tensor([token])))
            if self.ended(token):
                break
            attention.position += 1
        return Done()

    def memory(self) -> dict[str, int]:
        return {"weights": self._bundle.weight_bytes, "kv": self._store.nbytes}


class SmdDeployment(Deployment):
    """A vault and a decode service."""

    def __init__(self, bundle: Bundle, boundary: Boundary, wire_dtype: str) -> None:
        dtype = DTYPES[wire_dtype]
        self.vault = Vault(dtype)
        super().__init__(bundle, boundary, self.vault, SHOWS)
        self._wire_dtype = wire_dtype
        self._prefill_model = HookedModel(bundle)
        self._channel = boundary.open(self.vault, partial(DecodeService, bundle, dtype))

    @property
    def parameters(self) -> Mapping[str, object]:
        return {"wire_dtype": self._wire_dtype}

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        logits = self.vault.prefill(self._prefill_model, ids, self.bundle.device)
        first = int(logits.argmax()) if forced is None else forced[0]
        self.vault.take(first)
        if forced is not None:
            self.boundary.tap("arm", forced[1:])
        if max_new_tokens > 1 and (forced is not None or first != self.bundle.end_id):
            self._channel.request(StartDecode(token_tensor([first]), len(ids), max_new_tokens - 1))
        return [] if forced is None else [logits, *self.tapped()]

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], self.vault.store.nbytes, held["kv"])


class Smd(Defense):
    """Secure multi-party decoding.

    Args:
        wire_dtype: ``fp32``, ``fp16`` or ``bf16`` for queries and attention on the wire. Exact to fp32 rounding with
            ``fp32`` only: a 16-bit wire moves the merged vector by about 1e-3 relative.

    Raises:
        ConfigError: for another dtype.
    """

    def __init__(self, wire_dtype: str = "fp32") -> None:
        if wire_dtype not in DTYPES:
            raise ConfigError(f"wire_dtype={wire_dtype} is unknown: use one of {', '.join(DTYPES)}")
        self.wire_dtype = wire_dtype

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    def deploy(self, bundle: Bundle, boundary: Boundary, seed: int = 0) -> SmdDeployment:
        return SmdDeployment(bundle, boundary, self.wire_dtype)
