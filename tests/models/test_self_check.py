"""A model that would not be exact is refused before anything is run on it, and one that was checked is not again."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.benches._shapes import small_bundle
from smd_research.core.errors import PromptError, UnsupportedModelError
from smd_research.models import self_check, sources
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.self_check import ensure_exact, ensure_plain
from smd_research.models.stretch import Stretch


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_known", {})
    monkeypatch.setattr(self_check, "_seen", type(self_check._seen)())


@pytest.fixture
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the checks that were run."""
    names: list[str] = []
    measured = self_check._measured

    def noted(subject: Any, name: str) -> float | str:
        names.append(name)
        return measured(subject, name)

    monkeypatch.setattr(self_check, "_measured", noted)
    return names


def test_the_first_hook_and_the_first_cut_check(llama: Bundle, runs: list[str]) -> None:
    HookedModel(llama)
    HookedModel(llama, None, 2)
    HookedModel(llama, 1, 2)
    HookedModel(llama)
    assert runs == ["prefill", "steps", "batch", "cut 2", "cut 1"]


def test_a_verdict_holds_for_every_model_of_a_structure(runs: list[str]) -> None:
    HookedModel(sources.random("llama", seed=1))
    HookedModel(sources.random("llama", seed=2))
    HookedModel(sources.random("qwen2", seed=2))
    assert runs.count("prefill") == 2


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss", "gpt_neo"])
def test_the_model_itself_stays_as_it_is(family: str) -> None:
    bundle = sources.random(family)
    before, windows = bundle.fingerprint(), bundle.model.config.to_json_string()
    ensure_exact(bundle, 2)
    ensure_plain(bundle)
    assert bundle.fingerprint() == before
    assert bundle.model.config.to_json_string() == windows
    assert bundle.dtype == torch.float32


def test_a_window_that_is_ignored_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = Stretch._attend

    def everything(self: Stretch, *arguments: Any, **options: Any) -> Tensor:
        options.pop("sliding_window", None)
        return attend(self, *arguments, **options)

    monkeypatch.setattr(Stretch, "_attend", everything)
    # two dozen tokens are far fewer than the window: the check shortens it on its copy
    with pytest.raises(UnsupportedModelError, match=r"'mistral' is not served.* check of prefill logits differ .* by"):
        HookedModel(small_bundle("mistral", sliding_window=300))


def test_every_cut_is_checked_by_itself(llama: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Stretch.forward

    def stretched(self: Stretch, runtime: Any, positions: Tensor, **options: Any) -> Tensor:
        return forward(self, runtime, positions * (1 + ("hidden" in options)), **options)

    monkeypatch.setattr(Stretch, "forward", stretched)
    ensure_exact(llama)
    with pytest.raises(UnsupportedModelError, match="check of cut 2"):
        ensure_exact(llama, 2)


def test_two_way_attention_is_no_causal_model() -> None:
    with pytest.raises(UnsupportedModelError, match="family 'bert' is not served"):
        HookedModel(small_bundle("bert"))


def test_a_yardstick_that_ignores_its_cache_is_refused(llama: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(llama.model)
    forward = type(model).forward

    def forgetful(self: Any, input_ids: Tensor, **options: Any) -> Any:
        options.pop("cache", None)
        options.pop("past_key_values", None)
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(model), "forward", forgetful)
    forgetting = replace(llama, model=model)
    ensure_exact(forgetting)
    with pytest.raises(UnsupportedModelError, match="check of plain decoding"):
        ensure_plain(forgetting)


def test_weights_that_are_no_numbers_are_refused(llama: Bundle) -> None:
    model = copy.deepcopy(llama.model)
    model.get_input_embeddings().weight.data[:] = torch.nan
    with pytest.raises(UnsupportedModelError, match="computes logits that are no numbers"):
        HookedModel(replace(llama, model=model))
    HookedModel(llama)  # a sound model of the same structure is not to blame


@pytest.mark.parametrize(("kind", "context"), [("longrope", 64), ("dynamic", 512)])
def test_no_text_crosses_the_length_where_all_angles_change(kind: str, context: int) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 8.0, "partial_rotary_factor": 1.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 64}
    family = "phi3" if kind == "longrope" else "llama"
    more = {"original_max_position_embeddings": 64} if kind == "longrope" else {}
    bundle = small_bundle(family, rope_parameters=rope, **more)
    assert bundle.geometry.context == context
    ensure_plain(bundle)
    with pytest.raises(PromptError, match=f"context of {context}"):
        bundle.check_prompt(context, 1)
