"""The vault of Prompt Obfuscation: draws the virtual prompts, and alone knows which stream is authentic."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from smd_research.data.prompts import TokenSpan
from smd_research.defenses.po.multiplexed import MultiplexedAttention
from smd_research.defenses.smd.vault import Vault
from smd_research.mechanisms.decoys.quantised_sampling import Decoys, sample
from smd_research.mechanisms.decoys.quantiser import Quantiser
from smd_research.models.attention import KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel

Secret = tuple[str, tuple[int, ...]]


class FakeMemory:
    """Fakes of the secrets met so far, so that a secret asked about again stands among the same ones."""

    def __init__(self) -> None:
        self._fakes: dict[Secret, list[list[int]]] = {}

    def recall(self, ids: Sequence[int], spans: Sequence[TokenSpan]) -> dict[int, list[list[int]]]:
        """Fakes of the prompt's known secrets, by index of the span."""
        secrets = {index: _secret(ids, span) for index, span in enumerate(spans)}
        return {index: self._fakes[secret] for index, secret in secrets.items() if secret in self._fakes}

    def keep(self, decoys: Decoys, spans: Sequence[TokenSpan]) -> None:
        """Remember a prompt's fakes."""
        rows = decoys.ids.tolist()
        for span in spans:
            fakes = [row[span.start : span.end] for row in rows[1:]]
            self._fakes.setdefault(_secret(rows[0], span), fakes)


def _secret(ids: Sequence[int], span: TokenSpan) -> Secret:
    return span.type, tuple(ids[span.start : span.end])


class PoVault(Vault):
    """A vault of several streams.

    Args:
        wire_dtype: type in which attention crosses.
        quantiser: how fakes are drawn.
        sticky: whether a secret keeps its fakes.
    """

    def __init__(self, wire_dtype: torch.dtype, quantiser: Quantiser, sticky: bool) -> None:
        super().__init__(wire_dtype)
        self._quantiser = quantiser
        self._memory = FakeMemory() if sticky else None
        self._ends: Collection[int] = ()
        self.outputs: list[list[int]] = []

    def restart(self) -> None:
        super().restart()
        self.outputs = []

    def disguise(
        self, bundle: Bundle, ids: Sequence[int], spans: Sequence[TokenSpan], rng: np.random.Generator
    ) -> Decoys:
        """Virtual prompts for an authentic one.

        Raises:
            RefusedError: where there are too few fakes.
        """
        known = self._memory.recall(ids, spans) if self._memory else None
        decoys = sample(bundle, ids, spans, self._quantiser, rng, known)
        if self._memory:
            self._memory.keep(decoys, spans)
        return decoys

    def prefill_full(self, model: HookedModel, prompts: Tensor, shared: int) -> Tensor:
        """Process every virtual prompt whole; what precedes the first secret is computed once.

        Args:
            model: the whole model, not kept.
            prompts: the streams ``[streams, n]``.
            shared: leading tokens that all have in common, fewer than ``n``.

        Returns:
            Logits ``[streams, vocab]`` of the first generated tokens.
        """
        self.store = KVStore(capacity=prompts.shape[1])
        attention = LocalAttention(self.store)
        positions = torch.arange(prompts.shape[1], device=prompts.device)
        if shared:
            model.forward(attention, positions[:shared], ids=prompts[:1, :shared], last_only=True)
            self.store.select(torch.zeros(len(prompts), dtype=torch.long, device=prompts.device))
        logits = model.forward(attention, positions[shared:], ids=prompts[:, shared:], last_only=True)[:, -1]
        self._know(attention, prompts.shape[1])
        return logits

    def prefill_multiplexed(self, model: HookedModel, prompts: Tensor, spans: Sequence[TokenSpan]) -> Tensor:
        """Process the virtual prompts as the released code does; else as ``prefill_full``."""
        length = prompts.shape[1]
        self.store = KVStore(capacity=length)
        attention = MultiplexedAttention(self.store, self.authentic, spans, length, prompts.device)
        positions = torch.arange(length, device=prompts.device)
        logits = model.forward(attention, positions, ids=prompts, last_only=True)[:, -1]
        self._know(attention, length)
        return logits

    def expect(self, end_ids: Collection[int]) -> None:
        """Set the tokens after any of which the authentic stream is padding."""
        self._ends = end_ids

    def take(self, token: int) -> None:
        """Note a token of the authentic stream, up to its own end."""
        if not self.ids:
            self.outputs = [[first] for first in self._latest]
        if not self.ids or self.ids[-1] not in self._ends:
            super().take(token)

    def _next(self, tokens: list[int]) -> None:
        super()._next(tokens)
        for output, token in zip(self.outputs, tokens, strict=True):
            output.append(token)
