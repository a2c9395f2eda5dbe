"""Hooked attention equals stock attention, for every family, for any stretch of blocks."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from smd_research.core.errors import UnsupportedModelError
from smd_research.models import Bundle, families, sources
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention
from smd_research.models.hooked import HookedModel

ROWS = 40


class _Acausal(LocalAttention):
    """Sees the future: what a hook without a mask would do."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        later = torch.full_like(positions, int(positions.max()) + 1)
        return super().attend(layer, q, k, v, later - 1, AttentionSpec(spec.scale, spec.softcap, None))


def _ids(bundle: Bundle, rows: int = ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, bundle.geometry.vocab, (1, rows), generator=generator)


def _stock(bundle: Bundle, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = bundle.model(input_ids=ids).logits
    return logits


def _error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module", params=families.FAMILIES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return sources.random(request.param)


def test_whole_prompt(bundle: Bundle) -> None:
    ids = _ids(bundle)
    got = HookedModel(bundle).forward(LocalAttention(), torch.arange(ROWS), ids=ids)
    assert _error(got, _stock(bundle, ids)) < 3e-6


def test_token_by_token(bundle: Bundle) -> None:
    ids, model, attention = _ids(bundle), HookedModel(bundle), LocalAttention(KVStore(capacity=4))
    got = [model.forward(attention, torch.arange(8), ids=ids[:, :8])]
    got += [model.forward(attention, torch.tensor([t]), ids=ids[:, t : t + 1]) for t in range(8, ROWS)]
    assert _error(torch.cat(got, 1), _stock(bundle, ids)) < 3e-6


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_cut_between_blocks(bundle: Bundle, cut: int) -> None:
    ids, positions = _ids(bundle), torch.arange(ROWS)
    hidden = HookedModel(bundle, None, cut).forward(LocalAttention(), positions, ids=ids)
    got = HookedModel(bundle, cut).forward(LocalAttention(), positions, hidden=hidden)
    assert _error(got, _stock(bundle, ids)) < 3e-6


def test_without_causality_the_comparison_fails(bundle: Bundle) -> None:
    ids = _ids(bundle)
    got = HookedModel(bundle).forward(_Acausal(), torch.arange(ROWS), ids=ids)
    assert _error(got, _stock(bundle, ids)) > 1e-3


def test_the_bundle_stays_as_it_was(bundle: Bundle) -> None:
    before = (bundle.fingerprint(), bundle.model.config._attn_implementation, len(list(bundle.model.modules())))
    HookedModel(bundle, 1, 2).forward(
        LocalAttention(), torch.arange(3), hidden=torch.zeros(1, 3, bundle.geometry.width)
    )
    HookedModel(bundle).forward(LocalAttention(), torch.arange(3), ids=_ids(bundle, 3))
    after = (bundle.fingerprint(), bundle.model.config._attn_implementation, len(list(bundle.model.modules())))
    assert before == after


def test_weights_are_shared_not_copied(bundle: Bundle) -> None:
    ours = {p.data_ptr() for p in bundle.model.parameters()}
    assert {p.data_ptr() for p in HookedModel(bundle).model.parameters()} <= ours


def test_every_layer_is_seen_once(bundle: Bundle) -> None:
    attention = LocalAttention()
    HookedModel(bundle).forward(attention, torch.arange(3), ids=_ids(bundle, 3))
    assert sorted(attention.specs) == list(range(bundle.geometry.layers))
    assert all(attention.store.length(layer) == 3 for layer in attention.specs)


def test_the_windows_of_sliding_families_are_seen() -> None:
    windows = {}
    for family in ("mistral", "gemma2", "gpt_neo", "llama"):
        bundle, attention = sources.random(family), LocalAttention()
        HookedModel(bundle).forward(attention, torch.arange(3), ids=_ids(bundle, 3))
        windows[family] = {spec.window for spec in attention.specs.values()}
    assert windows == {"mistral": {12}, "gemma2": {12, None}, "gpt_neo": {12, None}, "llama": {None}}


def _odd_bundle(family: str) -> Bundle:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99, "rotary_dim": 8}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**sizes))
    return Bundle.of(family, model, sources.embedded_tokenizer())


@pytest.mark.parametrize("family", families.REFUSED)
def test_a_family_that_cannot_be_hooked_is_refused_by_name(family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{family}' is not served: it "):
        HookedModel(_odd_bundle(family))


def test_an_unlisted_family_that_bypasses_the_hook_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(families.REFUSED, "bloom")
    with pytest.raises(UnsupportedModelError, match="'bloom' is not served, for it would not be exact"):
        HookedModel(_odd_bundle("bloom")).forward(
            LocalAttention(), torch.arange(4), ids=torch.ones(1, 4, dtype=torch.long)
        )


def test_blocks_out_of_range_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="it has 4"):
        HookedModel(sources.random("llama"), 5)


def test_a_real_checkpoint(shared_data: Path) -> None:
    bundle = sources.local(str(shared_data / "stories260k-hf"))
    ids = torch.tensor([bundle.tokenizer("Once upon a time, there was a little girl named Lily.")["input_ids"]])
    got = HookedModel(bundle).forward(LocalAttention(), torch.arange(ids.shape[1]), ids=ids)
    assert _error(got, _stock(bundle, ids)) < 3e-6
