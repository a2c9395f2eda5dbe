"""One token of every stream through blocks built like Llama's, and nothing beside what they compute.

Around its blocks transformers makes masks, caches and collections of outputs, which for one token through a small model
takes longer than the model. Here the stock modules are called by hand, in their order: a norm, attention, a sum, a
norm, the MLP, a sum. A layer's queries are rotated and handed over before its keys and values are computed, in one
pass. What a layer's attention is besides, its scale or window, is seen on one token of the hooked model. Which families
are built so is in their records, and whether a model comes out as it went in is measured (``models.self_check``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.attention import AttentionSpec, LocalAttention, QueryFirstRuntime
from smd_research.models.bundle import Bundle
from smd_research.models.families import family_of
from smd_research.models.few_rows import product
from smd_research.models.stretch import Stretch
from smd_research.models.structure import blocks_of, final_norm_of, rotaries_of


@dataclass(frozen=True)
class _Block:
    """The stock modules of a block, found once: looking them up takes as long as adding two vectors."""

    layer: int
    spec: AttentionSpec
    before: nn.Module
    q: nn.Module
    k: nn.Module
    v: nn.Module
    o: nn.Module
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    between: nn.Module
    gate: nn.Module
    up: nn.Module
    act: nn.Module
    down: nn.Module

    @classmethod
    def of(cls, layer: int, spec: AttentionSpec, block: Any) -> "_Block":
        attention, mlp = block.self_attn, block.mlp
        return cls(
            layer=layer,
            spec=spec,
            before=block.input_layernorm,
            q=attention.q_proj,
            k=attention.k_proj,
            v=attention.v_proj,
            o=attention.o_proj,
            q_norm=getattr(attention, "q_norm", None),
            k_norm=getattr(attention, "k_norm", None),
            between=block.post_attention_layernorm,
            gate=mlp.gate_proj,
            up=mlp.up_proj,
            act=mlp.act_fn,
            down=mlp.down_proj,
        )


class LeanDecode:
    """Blocks ``first ..`` of a bundle's model to the logits, its own modules.

    Args:
        bundle: the model.
        first: index of the first block, which takes hidden states; None starts from token ids.

    Raises:
        UnsupportedModelError: for a family whose record does not say that it is built so.
    """

    def __init__(self, bundle: Bundle, first: int | None = None) -> None:
        if not family_of(bundle.family).lean:
            raise UnsupportedModelError(f"family '{bundle.family}' has no lean form")
        model, layers = bundle.model, bundle.geometry.layers
        seen, one = LocalAttention(), torch.zeros(1, 1, dtype=torch.long, device=bundle.device)
        Stretch(bundle).forward(seen, one[0], ids=one)
        self._embed, self._head = model.get_input_embeddings(), model.get_output_embeddings()
        self._norm, self._rotary = final_norm_of(model, layers), next(rotaries_of(model))
        self._head_dim = bundle.geometry.head_dim
        blocks = list(blocks_of(model, layers))
        self._blocks = [_Block.of(layer, seen.specs[layer], blocks[layer]) for layer in range(first or 0, layers)]

    @torch.inference_mode()
    def forward(
        self,
        runtime: QueryFirstRuntime,
        positions: Tensor,
        *,
        ids: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Run the blocks.

        Args:
            runtime: computes each block's attention.
            positions: absolute positions ``[1]``, shared by all streams, or ``[streams, 1]``.
            ids: token ids ``[streams, 1]``, where the blocks begin with the embedding.
            hidden: hidden states ``[streams, 1, width]``, where they begin later.

        Returns:
            Logits ``[streams, 1, vocab]``.
        """
        x: Tensor = self._embed(ids)[:, 0] if hidden is None else hidden[:, 0]
        cos, sin = self._angles(x, positions)
        streams = x.shape[0]
        for block in self._blocks:
            runtime.enter()
            inner = block.before(x)
            q = self._rotated(self._heads(block.q, inner, block.q_norm), cos, sin)
            runtime.ask(block.layer, q, block.spec)
            k = self._rotated(self._heads(block.k, inner, block.k_norm), cos, sin)
            v = self._heads(block.v, inner)
            merged = runtime.attend(block.layer, q, k, v, positions, block.spec)
            x = x + product(block.o, merged.reshape(streams, -1))
            inner = block.between(x)
            x = x + product(block.down, block.act(product(block.gate, inner)) * product(block.up, inner))
        return product(self._head, self._norm(x))[:, None]

    def _angles(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines, and sines with the sign that the other half of a head comes with: ``[1 or streams, 1, 1, d]``."""
        cos, sin = self._rotary(x, positions.view(-1, 1))
        sin = torch.cat([-sin[..., : self._head_dim // 2], sin[..., self._head_dim // 2 :]], -1)
        return cos[:, None], sin[:, None]

    def _heads(self, projection: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Queries, keys or values ``[streams, heads, 1, d]``, before their rotation."""
        heads = product(projection, x).view(x.shape[0], -1, 1, self._head_dim)
        if norm is None:
            return heads
        normed: Tensor = norm(heads)
        return normed

    def _rotated(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.addcmul(heads * cos, heads.roll(self._head_dim // 2, -1), sin)
