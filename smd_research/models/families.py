"""What must be known of a model family: one record a family, read by everything that reaches into a model.

A family that is not listed is tried with the names that are common in transformers, and refused by name where they do
not fit. A new family is one record of ``FAMILIES``: the tests of models and defenses run over all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Names = tuple[str, ...]
"""Names that a thing may have: the first that is there counts."""

Part = Literal["attention", "mlp"]


@dataclass(frozen=True)
class SizeNames:
    """What a family's configuration calls its sizes; ``kv_heads`` and ``head_dim`` follow from others where absent."""

    layers: Names = ("num_hidden_layers",)
    width: Names = ("hidden_size",)
    heads: Names = ("num_attention_heads",)
    kv_heads: Names = ("num_key_value_heads",)
    head_dim: Names = ("qk_head_dim", "head_dim")
    context: Names = ("max_position_embeddings",)


@dataclass(frozen=True)
class Matrices:
    """The linear layers of a block: their roles by their names.

    Attributes:
        attention: ``q k v`` or the fused ``qkv``, and ``o``, which writes to the residual stream. Latent attention has
            ``q_a kv_a``, which read the stream, and ``q_b kv_b``, which read what those made of it.
        mlp: ``gate up`` or the fused ``gate_up``, and ``down``, which writes to the residual stream; ``router``, which
            chooses experts.
    """

    attention: Mapping[str, str]
    mlp: Mapping[str, str]

    def of(self, part: Part) -> Mapping[str, str]:
        """The roles in one part of a block."""
        return self.attention if part == "attention" else self.mlp

    @property
    def projections(self) -> Names:
        """The layers that compute queries, keys and values, in this order; none where one computes all three."""
        names = {role: name for name, role in self.attention.items()}
        return tuple(names[role] for role in "qkv") if {"q", "k", "v"} <= names.keys() else ()


@dataclass(frozen=True)
class OwnAttention:
    """An attention that does not go through the interface of transformers, and is replaced where it stands.

    Attributes:
        module: class name of the attention module.
        method: its method that takes queries, keys and values ``[batch, heads, rows, d]`` and a mask.
        scale: factor of the scores.
        window: the sliding window of a module in tokens, or None.
    """

    module: str
    method: str
    scale: float
    window: Callable[[Any], int | None]


_SEPARATE = {"q_proj": "q", "k_proj": "k", "v_proj": "v"}
_LLAMA = Matrices({**_SEPARATE, "o_proj": "o"}, {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"})


@dataclass(frozen=True)
class Family:
    """A model family; what is not given is as in Llama.

    Attributes:
        name: what transformers calls it (``model_type``).
        small: sizes of a small model of random weights: four blocks, grouped queries where the family has them, windows
            short enough that a test prompt crosses them.
        sizes: names in its configuration.
        matrices: linear layers of a block.
        final_norm: the norm between the last block and the head.
        rotary: the module that computes angles, where its class is not called so.
        position_tables: parts of the names of tables that read positions, of which there may be as many as tokens.
        head_norms: norms inside attention, which do not act on the residual stream.
        own_attention: for a family that goes past the attention interface of transformers.
        lean: whether its blocks are Llama's in order and in the names of their parts (``models.lean_decode``), for any
            configuration that it may have.
        refused: why its attention cannot be replaced, for one that is known not to work.
    """

    name: str
    small: Mapping[str, Any] = field(default_factory=dict)
    sizes: SizeNames = SizeNames()
    matrices: Matrices = _LLAMA
    final_norm: Names = ("norm",)
    rotary: Names = ("rotary_emb",)
    position_tables: Names = ()
    head_norms: Names = ()
    own_attention: OwnAttention | None = None
    lean: bool = False
    refused: str | None = None


_SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "intermediate_size": 128}
_GPT2_SIZES = SizeNames(("n_layer",), ("n_embd",), ("n_head",), context=("n_positions",))
_SLIDING = {**_GROUPED, "head_dim": 16, "sliding_window": 12}


def _gpt_neo_window(module: Any) -> int | None:
    """Every second layer is local."""
    return int(module.config.window_size) if module.attention_type == "local" else None


_RECORDS = (
    Family("llama", small=_GROUPED, lean=True),
    Family(
        "gpt2",
        small={"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512},
        sizes=_GPT2_SIZES,
        matrices=Matrices({"c_attn": "qkv", "c_proj": "o"}, {"c_fc": "up", "c_proj": "down"}),
        final_norm=("ln_f",),
        rotary=(),
        position_tables=("wpe",),
    ),
    Family("qwen2", small=_GROUPED, lean=True),
    Family("qwen3", small={**_GROUPED, "head_dim": 16}, head_norms=("q_norm", "k_norm"), lean=True),
    Family("mistral", small=_SLIDING, lean=True),
    Family(
        "gpt_neox",
        small={**_SMALL, "intermediate_size": 128},
        matrices=Matrices({"query_key_value": "qkv", "dense": "o"}, {"dense_h_to_4h": "up", "dense_4h_to_h": "down"}),
        final_norm=("final_layer_norm",),
    ),
    Family(
        "phi",
        small={**_SMALL, "intermediate_size": 128},
        matrices=Matrices({**_SEPARATE, "dense": "o"}, {"fc1": "up", "fc2": "down"}),
        final_norm=("final_layernorm",),
        head_norms=("q_layernorm", "k_layernorm"),
    ),
    Family("gemma2", small={**_SLIDING, "query_pre_attn_scalar": 16}),
    Family(
        "gpt_oss",  # sinks reach the runtime as an argument of the interface; experts are no linear layers
        small={
            **_SLIDING,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 16,
            },
        },
        matrices=Matrices(_LLAMA.attention, {}),
    ),
    Family(
        "opt",
        small={**_SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64},
        matrices=Matrices({**_SEPARATE, "out_proj": "o"}, {"fc1": "up", "fc2": "down"}),
        final_norm=("final_layer_norm",),
        rotary=(),
        position_tables=("embed_positions",),
    ),
    Family(
        "gpt_neo",
        small={
            "hidden_size": 64,
            "num_layers": 4,
            "num_heads": 4,
            "intermediate_size": 128,
            "window_size": 12,
            "attention_types": [[["global", "local"], 2]],
        },
        sizes=SizeNames(layers=("num_layers",), heads=("num_heads",)),
        matrices=Matrices({**_SEPARATE, "out_proj": "o"}, {"c_fc": "up", "c_proj": "down"}),
        final_norm=("ln_f",),
        rotary=(),
        position_tables=("wpe",),
        own_attention=OwnAttention("GPTNeoSelfAttention", "_attn", scale=1.0, window=_gpt_neo_window),
    ),
)

FAMILIES: dict[str, Family] = {record.name: record for record in _RECORDS}

REFUSED: dict[str, str] = {
    "bloom": "it computes attention by itself, with a bias of its own on the scores",
    "falcon": "it computes attention by itself",
    "mpt": "it computes attention by itself, with a bias of its own on the scores",
}
"""Families that are known not to work, and why."""

UNLISTED = Family(
    "unlisted",
    sizes=SizeNames(
        layers=("num_hidden_layers", "n_layer", "num_layers"),
        width=("hidden_size", "n_embd"),
        heads=("num_attention_heads", "n_head", "num_heads"),
        context=("max_position_embeddings", "n_positions", "max_target_positions"),
    ),
    matrices=Matrices(
        {
            **_SEPARATE,
            "q_a_proj": "q_a",
            "q_b_proj": "q_b",
            "kv_a_proj_with_mqa": "kv_a",
            "kv_b_proj": "kv_b",
            "qkv_proj": "qkv",
            "c_attn": "qkv",
            "query_key_value": "qkv",
            "o_proj": "o",
            "out_proj": "o",
            "c_proj": "o",
            "dense": "o",
        },
        {
            "gate_proj": "gate",
            "gate_up_proj": "gate_up",
            "gate": "router",
            "router": "router",
            "shared_expert_gate": "router",
            "up_proj": "up",
            "c_fc": "up",
            "fc1": "up",
            "fc_in": "up",
            "dense_h_to_4h": "up",
            "down_proj": "down",
            "c_proj": "down",
            "fc2": "down",
            "fc_out": "down",
            "dense_4h_to_h": "down",
        },
    ),
    final_norm=("norm", "ln_f", "final_layer_norm", "final_layernorm"),
    position_tables=("pos", "wpe"),
    head_norms=("q_norm", "k_norm", "q_layernorm", "k_layernorm", "q_a_layernorm", "kv_a_layernorm"),
)
"""The names that are common in transformers, for a family without a record."""


def family_of(name: str) -> Family:
    """The record of a family by what transformers calls it; for one that is not listed, the common names."""
    return FAMILIES.get(name) or replace(UNLISTED, name=name, refused=REFUSED.get(name))


def part_of(path: Sequence[str]) -> Part:
    """The part of a block that a module belongs to, by the words of its name."""
    return "attention" if any("attn" in word or "attention" in word for word in path[:-1]) else "mlp"


def matrix_names(part: Part) -> dict[str, str]:
    """The roles of linear layers by their names in any family; a name means the same in all of them."""
    return {name: role for one in (UNLISTED, *FAMILIES.values()) for name, role in one.matrices.of(part).items()}
