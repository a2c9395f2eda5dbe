"""Model families and their odd features: exact or refused, none silently wrong, none raw."""

import random
from typing import Any

import pytest
import transformers

from experiments.benches._shapes import causal_families
from experiments.benches.families import judge

LISTED = ("llama", "gpt2", "qwen2", "qwen3", "mistral", "gpt_neox", "phi", "gemma2", "gpt_oss", "opt", "gpt_neo")
ONCE_WRONG = ("cohere", "cohere2", "glm", "glm4", "deepseek_v2", "deepseek_v3", "minicpm3", "gemma3_text", "olmo3")
ONCE_RAW = ("hunyuan_v1_dense", "gptj", "codegen", "llama4_text", "smollm3", "nanochat")
REFUSED = (
    "bert",
    "roberta",
    "bloom",
    "falcon",
    "mpt",
    "mamba",
    "jamba",
    "gemma3n_text",
    "gemma4_text",
    "lfm2_moe",
    "rwkv",
)
LATER = ("gptj", "codegen")
CUTS = (0, 3, 8)
OTHERS = [family for family in causal_families() if family not in LISTED + ONCE_WRONG + ONCE_RAW + REFUSED]
A_THIRD = sorted(random.Random(12).sample(OTHERS, len(OTHERS) // 3))

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 64,
}
LONG = {
    **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64, "factor": 8.0},
    **{"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "partial_rotary_factor": 1.0},
}
FEATURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("llama", {"rope_parameters": LINEAR}),
    ("llama", {"rope_parameters": DYNAMIC}),
    ("llama", {"rope_parameters": YARN}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 1}),
    ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("llama", {"head_dim": 24}),
    ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 64}),
    ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}),
    ("phi3", {"sliding_window": 24}),
    ("phi", {"qk_layernorm": True}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 3}),
    ("qwen3", {"attention_bias": True}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 3}),
    ("gemma", {"head_dim": 32}),
    ("gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    ("gemma2", {"attn_logit_softcapping": None, "query_pre_attn_scalar": 64}),
    ("gemma3_text", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 5}),
    ("gemma3_text", {"attn_logit_softcapping": 20.0}),
    ("gemma3_text", {"use_bidirectional_attention": True}),
    ("cohere", {"use_qk_norm": True}),
    ("cohere", {"logit_scale": 0.5, "attention_bias": True}),
    ("cohere2", {"layer_types": ["full_attention"] * 8}),
    ("olmo", {"clip_qkv": 0.5}),
    ("olmo3", {"num_key_value_heads": 2}),
    ("stablelm", {"use_qkv_bias": True, "qk_layernorm": True}),
    ("stablelm", {"use_parallel_residual": True}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gpt_neox", {"attention_bias": False, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt2", {"scale_attn_weights": False, "reorder_and_upcast_attn": True}),
    ("gptj", {"rotary_dim": 4}),
    ("opt", {"do_layer_norm_before": False}),
    ("opt", {"word_embed_proj_dim": 32}),
    ("granite", {"attention_multiplier": 0.3, "residual_multiplier": 0.5, "embedding_multiplier": 3.0}),
    ("smollm3", {"no_rope_layers": [0, 1, 0, 1, 1, 1, 0, 0]}),
    ("llama4_text", {"attn_temperature_tuning": False, "use_qk_norm": False}),
    ("llama4_text", {"floor_scale": 16}),
    ("deepseek_v3", {"q_lora_rank": None, "rope_interleave": False}),
    ("deepseek_v3", {"v_head_dim": 40}),
    ("glm", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}}),
    ("starcoder2", {"sliding_window": 24, "use_bias": False}),
)
TWO_WAYS = ("gemma3_text", {"use_bidirectional_attention": True})


def _skip_unless_known(family: str) -> None:
    if family not in causal_families():
        pytest.skip(f"transformers {transformers.__version__} has no family '{family}'")


def _said(family: str, features: dict[str, Any]) -> str:
    return f"{family} {' '.join(features)}"


@pytest.mark.parametrize("family", LISTED + ONCE_WRONG + ONCE_RAW)
def test_a_named_family_is_exact(family: str) -> None:
    _skip_unless_known(family)
    judged = judge(family, cuts=CUTS)
    if family in LATER and judged.verdict == "refused":
        pytest.skip(f"transformers {transformers.__version__} does not let its attention be replaced: {judged.why}")
    assert judged.verdict == "exact", judged


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_keeps_more_than_keys_and_values_is_refused_in_one_line(family: str) -> None:
    _skip_unless_known(family)
    judged = judge(family)
    if judged.verdict == "not built":
        pytest.skip(judged.why)
    assert judged.verdict == "refused"
    assert f"'{family}'" in judged.why
    assert "\n" not in judged.why


@pytest.mark.slow
@pytest.mark.parametrize("family", A_THIRD)
def test_a_third_of_all_other_families(family: str) -> None:
    judged = judge(family, cuts=CUTS)
    assert judged.verdict in ("exact", "refused", "not built"), judged


@pytest.mark.slow
@pytest.mark.parametrize(("family", "features"), FEATURES, ids=[_said(*feature) for feature in FEATURES])
def test_a_published_feature_is_exact_or_refused(family: str, features: dict[str, Any]) -> None:
    _skip_unless_known(family)
    judged = judge(family, cuts=CUTS[:2], **features)
    assert judged.verdict == ("refused" if (family, features) == TWO_WAYS else "exact"), judged
