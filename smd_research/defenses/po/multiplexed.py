"""The released construction of virtual prompts, which gives the authentic one away; here to be broken.

The proof of concept (2024-11-27) prefills all candidates in one pass under a mask: text that the virtual prompts share
is computed once, attending to the authentic secrets only, and its keys serve every stream; a secret attends to the
common text before it and to itself, but to no other secret. So the keys of the common text fit the authentic stream
alone, and with two secrets not even that one is what the unprotected model computes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smd_research.data.prompts import TokenSpan
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention, visible
from smd_research.models.partial_attention import partial_attention


class MultiplexedAttention(LocalAttention):
    """Attention of whole virtual prompts ``[streams, n]`` under the released mask.

    Args:
        store: receives every stream's keys and values; those of the common text come out alike.
        authentic: the stream whose secrets the common text attends to.
        spans: where the secrets are.
        length: tokens of a prompt.
        device: of the prompts.
    """

    def __init__(
        self, store: KVStore, authentic: int, spans: Sequence[TokenSpan], length: int, device: torch.device
    ) -> None:
        super().__init__(store)
        self._authentic = authentic
        secret = torch.zeros(length, dtype=torch.long, device=device)
        for number, span in enumerate(spans, start=1):
            secret[span.start : span.end] = number
        self._common = secret == 0
        # what a row of a secret may see: common text and its own secret
        self._apart = (secret[None, :] == 0) | (secret[None, :] == secret[:, None])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.specs[layer], self.heads[layer] = spec, q.shape[1]
        self.store.append(layer, k, v, positions)
        causal = visible(positions, positions, spec)
        causal = torch.ones_like(self._apart) if causal is None else causal
        real = slice(self._authentic, self._authentic + 1)
        shared = partial_attention(q[real], k[real], v[real], spec.scale, spec.softcap, causal).a
        own = partial_attention(q, k, v, spec.scale, spec.softcap, causal & self._apart).a
        return torch.where(self._common[:, None], shared, own)
