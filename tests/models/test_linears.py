"""Linear layers of every family: found, read and replaced as ``[out, in]``, the given model left untouched."""

import pytest
import torch
from torch import nn

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle
from smd_research.models.linears import input_groups, linear_layers, place_of, weight_of, with_weights
from smd_research.models.sources import random

MATRICES = {
    "llama": "q k v o gate up down",
    "gpt2": "qkv o up down",
    "qwen2": "q k v o gate up down",
    "qwen3": "q k v o gate up down",
    "mistral": "q k v o gate up down",
    "gpt_neox": "qkv o up down",
    "phi": "q k v o up down",
    "gemma2": "q k v o gate up down",
    "opt": "k v q o up down",
    "gpt_neo": "k v q o up down",
}


def logits(bundle: Bundle) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = bundle.model(input_ids=torch.arange(5, 21)[None]).logits
    return found


@pytest.mark.parametrize("family", MATRICES)
def test_every_matrix_of_a_block_is_found(family: str) -> None:
    bundle = random(family)
    layers = linear_layers(bundle)
    places = [place_of(name) for name in layers]
    assert [place.block for place in places] == sorted(place.block for place in places)
    first = [place.matrix for place in places if place.block == 0]
    assert sorted(first) == sorted(MATRICES[family].split())
    assert len(layers) == bundle.geometry.layers * len(first)
    # Whatever a block multiplies by is among them: the rest are vectors.
    in_blocks = sum(weight_of(layer).numel() for layer in layers.values())
    shared = [bundle.embedding, getattr(bundle.model.get_output_embeddings(), "weight", None)]
    outside = {id(t): t.numel() for t in shared if t is not None}
    matrices = {id(p): p.numel() for name, p in bundle.model.named_parameters() if p.dim() > 1}
    positions = sum(p.numel() for n, p in bundle.model.named_parameters() if "wpe" in n or "embed_positions" in n)
    assert in_blocks + sum(outside.values()) + positions == sum(matrices.values())


@pytest.mark.parametrize("family", MATRICES)
def test_weights_act_on_rows(family: str) -> None:
    """``[out, in]``, whatever the family stores."""
    for layer in linear_layers(random(family)).values():
        x = torch.randn(3, weight_of(layer).shape[1], generator=torch.Generator().manual_seed(0))
        bias = layer.bias if isinstance(layer.bias, torch.Tensor) else torch.zeros(())
        torch.testing.assert_close(layer(x), x @ weight_of(layer).T + bias)


@pytest.mark.parametrize("family", MATRICES)
def test_replacing_weights(family: str) -> None:
    bundle = random(family)
    before, plain = bundle.fingerprint(), logits(bundle)
    layers = linear_layers(bundle)
    same = with_weights(bundle, {name: weight_of(layer).clone() for name, layer in layers.items()})
    torch.testing.assert_close(logits(same), plain)
    for name, layer in layers.items():
        other = with_weights(bundle, {name: weight_of(layer) * 1.5})
        assert (logits(other) - plain).abs().max() > 0
        torch.testing.assert_close(weight_of(linear_layers(other)[name]), weight_of(layer) * 1.5)
    assert bundle.fingerprint() == before
    torch.testing.assert_close(logits(bundle), plain, atol=0, rtol=0)


def test_other_tensors_are_shared() -> None:
    bundle = random("llama")
    name, layer = next(iter(linear_layers(bundle).items()))
    other = with_weights(bundle, {name: weight_of(layer) * 2})
    mine, theirs = bundle.model.state_dict(keep_vars=True), other.model.state_dict(keep_vars=True)
    assert {key for key in mine if mine[key] is not theirs[key]} == {f"{name}.weight"}
    assert other.model.get_output_embeddings().weight is other.embedding
    assert not other.model.get_submodule(name).weight.requires_grad


def test_weights_take_the_model_s_type() -> None:
    bundle = random("gpt2", dtype="bf16")
    name, layer = next(iter(linear_layers(bundle).items()))
    other = with_weights(bundle, {name: weight_of(layer).double()})
    assert linear_layers(other)[name].weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="c_attn"):
        with_weights(bundle, {name: weight_of(layer).T})


def test_experts_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"gpt_oss.*mlp.router"):
        linear_layers(random("gpt_oss"))


def test_an_unknown_matrix_is_refused() -> None:
    bundle = random("llama")
    bundle.model.model.layers[0].mlp.extra = nn.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match=r"mlp\.extra"):
        linear_layers(bundle)


def test_layers_that_read_one_input_go_together() -> None:
    groups = input_groups(linear_layers(random("llama")))
    words = [tuple(place_of(name).matrix for name in names) for names in groups]
    assert words[:5] == [("q", "k", "v"), ("o",), ("gate", "up"), ("down",), ("q", "k", "v")]
    fused = input_groups(linear_layers(random("gpt2")))
    assert [place_of(name).matrix for (name,) in fused[:4]] == ["qkv", "o", "up", "down"]
