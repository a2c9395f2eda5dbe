"""Attacks on the weights from the command line: scored on held-out text, beside a control and one choice of rate."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.base import Public
from experiments.commands.cli import main as smd
from experiments.trials import workbench
from experiments.trials.restoration import compared, restored, scores
from smd_research.core.errors import LabError
from smd_research.core.guess import WeightGuess
from smd_research.core.seeds import generator
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.mechanisms.decomposition.splits import split
from smd_research.models import Bundle, sources
from smd_research.models.linears import linear_layers, weight_of, with_weights

DEFENSE = ["-cd", str(Path(__file__).parent / "conf"), "defense=exposing"]
BUDGET = [f"attack.{word}" for word in ("tokens=64", "steps=2", "batch=1", "row_tokens=16", "search_steps=1")]
MODEL = ["model=random", "model.family=llama"]


SHORT = ["n_prompts=1", "prompt_tokens=8", "max_new_tokens=1", "held_out=4"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little public text, of the kind that the shipped model was trained on."""
    monkeypatch.setattr(workbench, "AUXILIARY_DOCUMENTS", 20)


def records(status: str = "ok") -> dict[tuple[str, int], dict[str, Any]]:
    """Metrics of every record by attack and seed."""
    documents = [json.loads(file.read_text()) for file in sorted(Path("results/cells").glob("*/metrics.json"))]
    return {
        (one["cell"]["attack"]["name"], one["cell"]["seed"]): one["metrics"]
        for one in documents
        if one["status"] == status
    }


def test_a_fine_tuning_record_stands_beside_its_control(in_folder: Path, few: None) -> None:
    """Seed 1 needs the rate of seed 0, and both their control: four cells of one command, none run twice."""
    command = ["run", *DEFENSE, *SHORT, "attack=finetune_null_space", *BUDGET, "seed=1"]
    assert smd(command) == 0
    found = records()
    assert set(found) == {(attack, seed) for attack in ("finetune_null_space", "from_scratch") for seed in (0, 1)}
    mine, control = found["finetune_null_space", 1], found["from_scratch", 1]
    assert mine["learning_rate"]["mean"] == found["finetune_null_space", 0]["learning_rate"]["mean"]
    assert mine["scratch_loss"]["mean"] == control["restored_loss"]["mean"]
    assert mine["original_loss"] == control["original_loss"], "both are scored on the same tokens"
    out, back, true = (mine[f"{name}_loss"]["mean"] for name in ("exposed", "restored", "original"))
    assert mine["rec_exposed"]["mean"] == pytest.approx((out - back) / (out - true))
    assert {"rec_scratch", "rec_exposed"}.isdisjoint(control)
    before = {file: file.stat().st_mtime_ns for file in Path("results/cells").iterdir()}
    assert smd(command) == 0
    assert {file: file.stat().st_mtime_ns for file in Path("results/cells").iterdir()} == before


def test_the_exposed_part_by_itself_recovers_nothing(in_folder: Path, few: None) -> None:
    assert smd(["run", *DEFENSE, *SHORT, "attack=exposed_weights"]) == 0
    ((_, found),) = records().items()
    assert found["rec_exposed"]["mean"] == 0
    assert found["weight_error"]["mean"] == pytest.approx(1)
    assert found["restored_loss"] == found["exposed_loss"]


def test_a_defense_that_hides_no_weights_is_not_attacked(in_folder: Path, small: list[str]) -> None:
    assert smd(["run", "defense=none", *MODEL, *small, "attack=finetune_full", *BUDGET]) == 1
    assert set(records("n/a")) == {("finetune_full", 0)}


def test_a_cell_does_not_apply_where_one_beside_it_does_not(in_folder: Path, small: list[str]) -> None:
    """The data is too short for the budget: a reason, not a failure."""
    assert smd(["run", *DEFENSE, *MODEL, *small, "attack=finetune_full", *BUDGET, "attack.tokens=5000", "seed=1"]) == 1
    assert set(records("n/a")) == {("finetune_full", 0), ("finetune_full", 1)}


def test_a_failed_control_fails_the_cell_in_a_line(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from attacks.weights.finetuning.methods import FromScratch

    def broken(*_: object) -> None:
        raise LabError("no room")

    monkeypatch.setattr(FromScratch, "trainee", broken)
    assert smd(["run", *DEFENSE, *MODEL, *small, "attack=finetune_null_space", *BUDGET]) == 1
    assert "the cell that this one stands beside is failed: no room" in capsys.readouterr().err


def laid_open() -> tuple[Bundle, Public]:
    whole = sources.random("llama")
    parts = {n: split(weight_of(m), 4, "svd", generator(0, n)) for n, m in linear_layers(whole).items()}
    exposed = with_weights(whole, {name: part.exposed for name, part in parts.items()})
    return whole, Public(exposed, "slip", (SecretParts((), dict.fromkeys(parts, 4)),))


def documents(whole: Bundle) -> list[list[int]]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randint(3, whole.geometry.vocab, (12,), generator=draws).tolist() for _ in range(4)]


def test_the_true_tensors_restore_everything() -> None:
    whole, known = laid_open()
    true = {f"{name}.weight": weight_of(layer) for name, layer in linear_layers(whole).items()}
    texts = documents(whole)
    found, _ = compared(whole, known, WeightGuess(true), None, texts, scores(whole, texts, "original"), None)
    assert found["restored_loss"].mean == pytest.approx(found["original_loss"].mean)
    assert found["restored_top1"].mean == 1
    assert found["weight_error"].mean < 1e-6
    assert "private_gain" not in found


def test_the_gain_over_a_public_relative_is_counted_where_there_is_one() -> None:
    whole, known = laid_open()
    relative = sources.random("llama", seed=1)
    guess, texts = WeightGuess(dict(relative.model.named_parameters())), documents(whole)
    found, _ = compared(whole, known, guess, relative, texts, scores(whole, texts, "original"), None)
    assert found["public_loss"].mean == pytest.approx(found["restored_loss"].mean)
    assert "scratch_loss" not in found


def test_the_control_is_compared_document_by_document() -> None:
    """On every document the attack goes half of the way, however the documents differ: there is nothing to doubt."""
    whole, known = laid_open()
    texts = [document[: 4 + 2 * n] for n, document in enumerate(documents(whole))]
    true = scores(whole, texts, "original")
    guess = WeightGuess(dict(sources.random("llama", seed=1).model.named_parameters()))
    _, back = compared(whole, known, guess, None, texts, true, None)
    control = [2 * mine - best for mine, best in zip(back, true.nll, strict=True)]
    found, _ = compared(whole, known, guess, None, texts, true, control)
    recovered = found["rec_scratch"]
    assert (recovered.mean, recovered.low, recovered.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found["scratch_loss"].mean == pytest.approx(sum(control) / sum(len(text) - 1 for text in texts))
    assert found["scratch_loss"].low < found["scratch_loss"].high


def test_restoring_leaves_the_exposed_model_as_it_was() -> None:
    _, known = laid_open()
    before = known.bundle.fingerprint()
    name = "model.layers.0.self_attn.q_proj.weight"
    mended = restored(known.bundle, WeightGuess({name: torch.zeros_like(known.bundle.model.state_dict()[name])}))
    assert not mended.model.state_dict()[name].any()
    assert known.bundle.fingerprint() == before
    with pytest.raises(LabError, match="does not have"):
        restored(known.bundle, WeightGuess({"no.such.weight": torch.zeros(1)}))


def test_scores_are_teacher_forced_sums() -> None:
    whole, _ = laid_open()
    (document, *_) = documents(whole)
    found = scores(whole, [document], "test")
    with torch.inference_mode():
        logits = whole.model(torch.tensor([document])).logits[0]
    expected = -sum(float(logits[i].log_softmax(-1)[token]) for i, token in enumerate(document[1:]))
    assert math.isclose(found.nll[0], expected, rel_tol=1e-5)
    assert found.greedy[0].tolist() == logits[:-1].argmax(-1).tolist()
