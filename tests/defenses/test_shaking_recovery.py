"""Recovery training: it brings the model back, it goes on after a kill with equal results, it is not done twice."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.shaking import Shaking
from smd_research.defenses.shaking.deployment import KeyedPrepared
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_logits
from smd_research.models.tables import with_tables
from smd_research.training.recovery import Distillation

OPTIONS: dict[str, Any] = {
    "inflate": 0.9,
    "tilt": 1.0,
    "gaussian": 0.0,
    "awareness_steps": 10,
    "function_steps": 3,
    "batch": 4,
    "row_tokens": 16,
    "learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def llama() -> Bundle:
    """With a table of a larger scale, so that there are sharp laws to lose."""
    bundle = sources.random("llama")
    return with_tables(bundle, 8 * bundle.embedding.detach(), None)


@pytest.fixture(scope="module")
def corpus(llama: Bundle) -> tuple[tuple[int, ...], ...]:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 40, 0), llama.tokenizer, 48, 0))


def _prepared(bundle: Bundle, corpus: Any, folder: Path | None = None, task: Any = (), **options: Any) -> KeyedPrepared:
    return Shaking(**{**OPTIONS, **options}).prepare(bundle, PublicText(corpus, task), folder=folder)


def _weights(bundle: Bundle) -> dict[str, Tensor]:
    return dict(bundle.model.named_parameters())


def _divergence(prepared: KeyedPrepared, ids: tuple[int, ...]) -> float:
    """From the public model, teacher-forced on text, nats."""
    bundle = prepared.bundle
    with prepared.deploy(Boundary()) as deployment:
        got = deployment.score(ids[:8], ids[8:]).log_softmax(-1)
    right = plain_logits(bundle, ids[:8], ids[8:]).log_softmax(-1)
    return float((right.exp() * (right - got)).sum(-1).mean())


@pytest.mark.parametrize(
    "options", [{}, {"head": "permuted", "homophones": 2, "frequent": 9}, {"precision": "bf16-mixed"}]
)
def test_training_brings_the_model_back(llama: Bundle, corpus: Any, options: dict[str, Any]) -> None:
    before = llama.fingerprint()
    untrained = _prepared(llama, corpus, **options, awareness_steps=0, function_steps=0)
    trained = _prepared(llama, corpus, **options, awareness_steps=30, function_steps=12)
    first, last = (_divergence(prepared, corpus[0]) for prepared in (untrained, trained))
    assert last < 0.8 * first
    assert llama.fingerprint() == before
    assert trained.seconds["implant"] > 0
    assert trained.flops["implant"] > 1e9
    torch.testing.assert_close(trained.public.embedding, untrained.public.embedding, rtol=0, atol=0)


def test_tables_may_be_trained_too_and_a_dropped_head_trains_with_the_clients(llama: Bundle, corpus: Any) -> None:
    free = _prepared(llama, corpus, freeze_tables=False).public
    frozen = _prepared(llama, corpus).public
    assert float((free.embedding - frozen.embedding).abs().max()) > 1e-4
    dropped = _prepared(llama, corpus, head="drop").public
    assert dropped.model.get_output_embeddings() is None
    assert float((dropped.model.model.norm.weight - llama.model.model.norm.weight).abs().max()) > 0


def test_function_recovery_reads_the_text_of_the_task(llama: Bundle, corpus: Any) -> None:
    first, second = (
        _weights(_prepared(llama, corpus, task=task, awareness_steps=0).public) for task in ((), corpus[20:])
    )
    assert any(not torch.equal(first[name], second[name]) for name in first)


class Killed(Exception):
    pass


def _stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Distillation.training_step
    done: list[int] = []

    def stopping(self: Distillation, rows: Any) -> Tensor:
        if len(done) == steps:
            raise Killed
        done.append(1)
        return step(self, rows)

    monkeypatch.setattr(Distillation, "training_step", stopping)


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_a_killed_training_goes_on_with_equal_results(
    llama: Bundle, corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """In either phase, before or after its first checkpoint."""
    homophones = {"homophones": 2, "frequent": 9}
    unbroken = _weights(_prepared(llama, corpus, **homophones).public)
    with monkeypatch.context() as patch:
        _stop_after(steps, patch)
        with pytest.raises(Killed):
            _prepared(llama, corpus, tmp_path, **homophones)
    resumed = _prepared(llama, corpus, tmp_path, **homophones)
    for name, values in _weights(resumed.public).items():
        torch.testing.assert_close(values, unbroken[name], rtol=0, atol=0)
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_finished_implant_is_loaded_and_another_ones_folder_is_refused(
    llama: Bundle, corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _prepared(llama, corpus, tmp_path)
    _stop_after(0, monkeypatch)
    again = _prepared(llama, corpus, tmp_path)
    for name, values in _weights(again.public).items():
        torch.testing.assert_close(values, _weights(first.public)[name], rtol=0, atol=0)
    assert again.flops == first.flops
    assert again.seconds["implant"] >= first.seconds["implant"] * 0.5
    for text, options in ((corpus, {"text_weight": 0.1}), (corpus[1:], {}), (corpus, {"head": "permuted"})):
        with pytest.raises(ConfigError, match="the implant of another model, text or training"):
            _prepared(llama, text, tmp_path, **options)
    (tmp_path / "implant.json").write_text("{")
    with pytest.raises(ConfigError, match=r"implant\.json is damaged"):
        _prepared(llama, corpus, tmp_path)


def test_an_implant_of_another_key_is_refused_in_one_line(llama: Bundle, corpus: Any, tmp_path: Path) -> None:
    _prepared(llama, corpus, tmp_path, awareness_steps=1, function_steps=0, secret="00" * 16)
    with pytest.raises(ConfigError, match="belongs to another key") as caught:
        _prepared(llama, corpus, tmp_path, awareness_steps=1, function_steps=0, secret="01" * 16)
    assert "\n" not in str(caught.value)
    assert "01" * 16 not in str(caught.value)
    assert all("01" * 16 not in path.read_text(errors="ignore") for path in tmp_path.iterdir())
