"""Published shapes of transformers' causal language models, shrunk until a test can afford them.

A configuration's defaults are those of a published checkpoint. What makes a family's attention what it is stays: which
layers slide, skip the rotation or hold experts, how heads share keys, that key and value widths differ; sizes go.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from smd_research.core.seeds import sequence
from smd_research.models.bundle import Bundle
from smd_research.models.self_check import enliven
from smd_research.models.sources import embedded_tokenizer

LAYERS, HEADS, WIDTH, INNER, VOCABULARY, CONTEXT, REACH = 8, 4, 64, 96, 512, 512, 24
"""Blocks (a period of every published pattern), heads, widths, words, positions, and tokens of a window or chunk."""

_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_dim", "emb_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("embedding_size", "lru_width", "attention_hidden_size"), WIDTH),
    **dict.fromkeys(
        ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size", "unpadded_vocab_size"), VOCABULARY
    ),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels", "dim_head", "swa_head_dim", "d_head"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 8),
    "qk_head_dim": 24,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "o_lora_rank": 16,
    "hidden_size_per_layer_input": 16,
    "query_pre_attn_scalar": 16,
    "dim_model_base": 16,
    "laurel_rank": 8,
    "topk_group": 1,
    "n_group": 2,
    "num_expert_group": 2,
    "max_window_layers": 2,
    "index_head_dim": 16,
    "index_n_heads": 4,
    "index_topk": REACH,
    "state_size": 8,
    "mamba_d_state": 8,
    "ssm_state_size": 8,
    "mamba_n_heads": 4,
    "mamba_num_heads": 4,
    "mamba_d_head": 32,
    "mamba_head_dim": 32,
    "num_mamba_heads": 4,
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_num_heads", "linear_num_value_heads"), 4),
    "linear_num_key_heads": 2,
}
"""What a size becomes, where a configuration has it at all."""

_MISSING: Mapping[str, Mapping[str, Any]] = {
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]], "window_size": REACH},
    "nemotron": {"num_key_value_heads": 2},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 2},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 2},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "reformer": {"is_decoder": True},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 5},
}
"""What the defaults of a configuration leave out, so that no model can be built of them, or not of so few blocks."""

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads", "encoder_attention_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "num_query_groups", "swa_num_key_value_heads")
_INNER = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "dim_ff", "dff", "d_inner", "n_inner", "feed_forward_size")
_CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length", "model_max_length")
_REACHES = ("sliding_window", "sliding_window_size", "attention_window_size", "window_size", "attention_chunk_size")


def causal_families() -> tuple[str, ...]:
    """All model types that the installed transformers builds a causal language model of, by name."""
    return tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))


def shrunk(family: str, **features: Any) -> PretrainedConfig:
    """A family's published shape in small.

    Args:
        family: what transformers calls it (``model_type``).
        features: values of the configuration that are to be others than published.

    Raises:
        Exception: whatever the family's configuration raises at sizes that it does not take.
    """
    return small_version(CONFIG_MAPPING[family](), **features)


def small_bundle(family: str, seed: int = 0, **features: Any) -> Bundle:
    """A model of a family's shrunk shape with random weights, large enough that attention is not uniform.

    Args:
        family: what transformers calls it (``model_type``).
        seed: of the weights.
        features: values of the configuration that are to be others than published.

    Raises:
        UnsupportedModelError: when the configuration's sizes are called by no name known.
        Exception: whatever the family raises at sizes that it does not take.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sequence(seed, "weights", family).generate_state(1)[0]))
        model = AutoModelForCausalLM.from_config(shrunk(family, **features))
    enliven(model)
    return Bundle.of(family, model, embedded_tokenizer())


def small_version(config: PretrainedConfig, **features: Any) -> PretrainedConfig:
    """A configuration with its sizes brought down and its patterns kept.

    Args:
        config: stays untouched.
        features: values that are set besides.
    """
    old = config.to_dict()
    missing = _MISSING.get(config.model_type, {})
    layers = next((old[name] for name in _LAYERS if isinstance(old.get(name), int)), LAYERS)
    heads = next((old[name] for name in _HEADS if isinstance(old.get(name), int)), HEADS)
    shrinking = _Shrinking(
        layers, missing.get("num_hidden_layers", min(layers, LAYERS)), heads, "qk_rope_head_dim" in old
    )
    new = {key: shrinking.of(key, value) for key, value in old.items() if key not in ("model_type", "dtype")}
    new |= {**missing, **features}
    for name in type(config).sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PretrainedConfig):
            new[name] = small_version(part).to_dict()
    return type(config)(**new)


@dataclass(frozen=True)
class _Shrinking:
    """Brings values of one configuration down: of ``layers`` blocks the first ``kept`` stay, of ``heads`` a few."""

    layers: int
    kept: int
    heads: int
    latent: bool

    def of(self, key: str, value: Any) -> Any:
        if key == "per_layer_config":
            return {block: self._inside(one) for block, one in value.items() if int(block) < self.kept}
        if isinstance(value, dict):
            return self._inside(value)
        if isinstance(value, list):
            return self._list(key, value)
        return value if isinstance(value, bool) or not isinstance(value, int) else self._int(key, value)

    def _inside(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.of(key, value) for key, value in values.items()}

    def _list(self, key: str, value: list[Any]) -> list[Any]:
        if key == "mrope_section":
            return [2, 3, 3]
        if key in ("moe_layers", "full_attn_idxs", "ple_layer_ids"):
            return [block for block in value if block < self.kept]
        return [self.of(key, one) for one in (value[: self.kept] if len(value) == self.layers else value)]

    def _int(self, key: str, value: int) -> int:
        if key.endswith(("token_id", "token_index")):
            return value % VOCABULARY
        if key == "head_dim" and self.latent:  # of the part that turns
            return _SIZES["qk_rope_head_dim"]
        if key in _KEY_HEADS:
            return HEADS if value >= self.heads else min(value, 2)
        if key in _LAYERS:
            return min(value, self.kept)
        for names, size in ((_HEADS, HEADS), (_CONTEXTS, CONTEXT), (_REACHES, REACH), ((key,), _SIZES.get(key))):
            if key in names and size is not None:
                return min(value, size)
        if any(word in key for word in _INNER):
            return min(value, INNER)
        if "expert" in key:
            return min(value, 2 if "per_tok" in key or "shared" in key else 8)
        return value
