"""Shapes of the models that can be trained: stock Hugging Face architectures with tied embeddings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from smd_research.core.errors import ConfigError
from smd_research.models.loading import load
from smd_research.models.sources import EMBEDDED_DIR


@dataclass(frozen=True)
class Architecture(ABC):
    """A shape that builds a stock model of ``layers`` blocks of ``hidden_size`` with ``heads`` query heads.

    Attributes:
        hidden_size: width of the residual stream.
        layers: number of blocks.
        heads: query heads.
        intermediate_size: width of the MLP.
        vocabulary: token ids.
        context: longest sequence in tokens.
    """

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary: int
    context: int

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.heads

    @property
    @abstractmethod
    def name(self) -> str:
        """How the command line calls it."""

    @property
    @abstractmethod
    def family(self) -> str:
        """The family and what marks it, for the model card."""

    @property
    def shape(self) -> str:
        """The sizes in words, for the model card."""
        return (
            f"{self.layers} layers, width {self.hidden_size}, {self.heads} heads, head size {self.head_dim}, "
            f"MLP {self.intermediate_size}, context {self.context}"
        )

    @abstractmethod
    def build(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        """A stock, freshly initialised model (from torch's global generator)."""


@dataclass(frozen=True)
class Llama(Architecture):
    """The Llama architecture; ``kv_heads`` key and value heads serve the query heads."""

    kv_heads: int

    @property
    def name(self) -> str:
        return "llama"

    @property
    def family(self) -> str:
        return "Llama (RoPE, RMSNorm, SwiGLU, grouped-query attention, tied embeddings), stock `LlamaForCausalLM`"

    @property
    def shape(self) -> str:
        return (
            f"{self.layers} layers, width {self.hidden_size}, {self.heads} heads, {self.kv_heads} KV heads, "
            f"head size {self.head_dim}, MLP {self.intermediate_size}, context {self.context}"
        )

    def build(self, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=self.hidden_size,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                num_key_value_heads=self.kv_heads,
                head_dim=self.head_dim,
                intermediate_size=self.intermediate_size,
                vocab_size=self.vocabulary,
                max_position_embeddings=self.context,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )


@dataclass(frozen=True)
class Descendant(Llama):
    """The embedded model's shape, and its weights to begin with: what comes out descends from a public model."""

    @property
    def name(self) -> str:
        return "descendant"

    @property
    def family(self) -> str:
        return f"{super().family}; trained on from the embedded model's weights"

    def build(self, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
        model: LlamaForCausalLM = load(EMBEDDED_DIR, torch.float32, local_files_only=True)[0]
        asked, there = super().build(tokenizer).config, model.config
        if [asked.hidden_size, asked.num_hidden_layers] != [there.hidden_size, there.num_hidden_layers]:
            raise ConfigError(
                "architecture=descendant has the shape of the embedded model: leave its sizes as they are"
            )
        return model.train()


@dataclass(frozen=True)
class Gpt2(Architecture):
    """The GPT-2 architecture without dropout: text of one pass is never seen twice."""

    @property
    def name(self) -> str:
        return "gpt2"

    @property
    def family(self) -> str:
        return (
            "GPT-2 (learned absolute positions, LayerNorm, GELU, multi-head attention, tied embeddings), "
            "stock `GPT2LMHeadModel`"
        )

    def build(self, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
        return GPT2LMHeadModel(
            GPT2Config(
                n_embd=self.hidden_size,
                n_layer=self.layers,
                n_head=self.heads,
                n_inner=self.intermediate_size,
                vocab_size=self.vocabulary,
                n_positions=self.context,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
