"""What was taken at position 0 is moved to any other exactly, by whichever way a family turns it; or it is said."""

import pytest
import torch
import transformers
from torch import Tensor

from experiments.benches._shapes import causal_families, small_bundle
from smd_research.core.errors import UnsupportedModelError
from smd_research.models import sources
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel
from smd_research.models.rotation import Rotation, Turn, _Lone, _Looked, rotation_of

PLACES = torch.tensor([1, 3, 64, 200])
WAYS = {
    "cohere": {("neighbours", 0)},
    "glm4": {("neighbours", 0)},
    "llama": {("halves", 0)},
    "deepseek_v3": {("halves", 16)},
    "deepseek_v2": {("neighbours", 16)},
    "glm": {("neighbours", 0)},
    "llama4_text": {("neighbours", 0), "still"},
    "cohere2": {("neighbours", 0), "still"},
    "gpt2": {"still"},
}


def _seen(bundle: Bundle, place: int) -> dict[int, tuple[Tensor, Tensor]]:
    """Queries and keys ``[tokens, heads, 1, d]`` of each layer for the same hidden states at a place."""
    hidden = torch.randn(30, 1, bundle.geometry.width, generator=torch.Generator().manual_seed(3))
    kept = _Lone()
    HookedModel(bundle, 0).forward(kept, torch.tensor([place]), hidden=hidden)
    return kept.seen


def _said(turn: Turn | None) -> object:
    assert turn is not None
    return "still" if turn.angles is None else (turn.layout, turn.start)


@pytest.mark.parametrize(
    "family", [*WAYS, "gemma3_text", "olmo3", "hunyuan_v1_dense", "smollm3", "nanochat", "gpt_oss"]
)
def test_every_layer_is_turned_exactly(family: str) -> None:
    if family not in causal_families():
        pytest.skip(f"transformers {transformers.__version__} has no family '{family}'")
    bundle = small_bundle(family)
    rotation, still = Rotation(bundle, bundle.geometry.layers), _seen(bundle, 0)
    if family in WAYS:
        assert {_said(turns.keys) for turns in rotation.layers} == WAYS[family]
    for place in PLACES:
        for layer, (q, k) in _seen(bundle, int(place)).items():
            ours = (
                rotation.queries(layer, still[layer][0], place[None]),
                rotation.keys(layer, still[layer][1], place[None]),
            )
            torch.testing.assert_close(ours[0], q, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(ours[1], k, atol=2e-5, rtol=1e-4)
            other = torch.randn(k.shape, generator=torch.Generator().manual_seed(layer))
            back = rotation.back(layer, other, place[None])
            torch.testing.assert_close(back.mul(still[layer][1]).sum(-1), other.mul(k).sum(-1), atol=1e-3, rtol=1e-3)


def test_a_norm_after_the_rotation_keeps_its_gain() -> None:
    bundle = small_bundle("hunyuan_v1_dense")
    for name, parameter in bundle.model.named_parameters():
        if name.endswith("key_layernorm.weight"):
            parameter.data = torch.linspace(0.5, 2.0, len(parameter))
    bundle = Bundle.of("gains", bundle.model, bundle.tokenizer)
    gains = [turns.keys.gain for turns in Rotation(bundle, 8).layers if turns.keys]
    assert len(gains) == 8
    assert all(gain is not None for gain in gains)
    turn = Rotation(bundle, 1).layers[0].keys
    assert turn is not None
    x, y = torch.randn(2, 5, 1, len(gains[0]), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    met = (turn(x, PLACES[2:3]) * y).sum(-1)
    torch.testing.assert_close((x * turn.adjoint(y, PLACES[2:3])).sum(-1), met, atol=1e-5, rtol=1e-4)


def test_a_way_that_is_not_found_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Looked, "_ways", lambda *_: iter((Turn(),)))
    bundle = sources.random("llama")
    rotation = Rotation(bundle, 4)
    assert not rotation.known
    with pytest.raises(UnsupportedModelError, match=r"'llama' .* layer 2 makes queries and keys depend"):
        rotation.queries(2, torch.zeros(1, 1, 16), torch.tensor([1]))
    # the engine then computes its tables where they are asked for
    engine = ExtensionEngine(bundle, 1)
    assert not engine.one_table
    torch.testing.assert_close(engine.layer0(9).k, engine.computed(9).k)


@pytest.mark.parametrize("family", ["cohere", "gpt2", "gemma3_text", "deepseek_v3"])
def test_tables_of_the_vocabulary_are_those_computed_in_place(family: str) -> None:
    engine = ExtensionEngine(small_bundle(family), 1)
    assert engine.one_table == (family != "gpt2")
    for place in (0, 9, 130):
        ours, real = engine.layer0(place), engine.computed(place)
        torch.testing.assert_close(ours.k, real.k, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(ours.q, real.q, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(ours.v, real.v)


def test_half_precision_is_turned_within_its_rounding() -> None:
    assert rotation_of(sources.random("llama", dtype="bf16"), 4).known
