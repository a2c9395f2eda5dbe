"""The laboratory with what is no prompt: weights, private tuning, promises; and with every defense that serves."""

from collections.abc import Iterator
from typing import Any

import pytest

from experiments import Lab
from experiments.composing.overrides import UsageError, groups
from experiments.trials import tuning, workbench
from experiments.trials.trial import trial
from experiments.trials.workbench import Workbench
from smd_research.core.errors import NotApplicableError
from smd_research.core.paths import conf_dir
from smd_research.models import sources

QUICK: dict[str, list[str]] = {
    "shaking": ["defense.awareness_steps=1", "defense.function_steps=1", "defense.batch=2"],
    **{name: ["defense.steps=1"] for name in ("adversarial", "bottleneck", "sparsify", "obfuscator")},
    "split_denoise": ["defense.steps=1", "defense.documents=8"],
    "po": ["defense.fakes=1"],
    "slip": ["defense.blocks=[0]"],
}
TASK = ["task.train=12", "task.validation=4", "task.evaluation=6", "task.tokens=12"]
TASK += ["tuning.steps=2", "tuning.batch=4", "tuning.checks=1"]
KEYED = [f"defense.{operator}=0" for operator in ("inflate", "tilt", "gaussian", "awareness_steps", "function_steps")]


@pytest.fixture(autouse=True, scope="module")
def _little_public_text() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "PUBLIC_TEXTS", 10)
        patch.setattr(workbench, "AUXILIARY_DOCUMENTS", 100)
        yield


@pytest.mark.parametrize("defense", sorted(groups(conf_dir())["defense"]))
def test_every_defense_that_serves_answers(defense: str) -> None:
    with Lab(*QUICK.get(defense, []), defense=defense, model="random", max_new_tokens=2) as lab:
        first, second = lab.ask(["Dear Ms. Lee, it is 5.", "The knee hurts."])
        assert len(first.ids) <= 2
        assert len(second.messages) > 0
        assert first.view.shows == lab.prepared.shows
        assert first.utility["kl"] >= -1e-6
        assert "Lee" not in repr(first)
        guess = lab.attack("random", second)
        assert len(guess.ids) == len(second.prompt.ids) or second.view.length is None


def test_weights_are_restored_as_in_a_cell() -> None:
    words = ["held_out=4", "max_new_tokens=2", "n_prompts=1"]
    steps = {"tokens": 600, "steps": 2, "search_steps": 1, "learning_rates": [0.01], "batch": 2, "row_tokens": 32}

    def no_other(plan: Any) -> Any:
        raise AssertionError

    with Lab(*words, "defense.rank=4", defense="slip", model="random") as lab:
        floor = lab.attack("exposed_weights")
        record = trial(lab._options.plan("exposed_weights"), Workbench(), no_other)
        assert floor["restored_loss"] == record.metrics["restored_loss"].mean
        assert floor["exposed_loss"] == floor["restored_loss"]
        found = lab.attack("finetune_full", **steps)
        assert {"scratch_loss", "restored_loss", "original_loss"} <= set(found.metrics.index)
        assert found.certified is None
        assert "LabOutcome(by='finetune_full'" in repr(found)
        assert "restored_loss" in found._repr_html_()
        with pytest.raises(NotApplicableError, match="asks again in the provider's place"):
            lab.attack("tampering_oracle")
        with pytest.raises(NotApplicableError, match="which the defense does not show"):
            lab.attack("partial_attention_inversion", lab.ask("Hello there."))


@pytest.mark.slow
def test_a_model_that_is_given_is_the_one_that_is_attacked() -> None:
    """A control is trained from scratch beside it: a model of its own, with no defense."""
    bundle = sources.random("llama")
    steps = {"tokens": 600, "steps": 1, "search_steps": 1, "learning_rates": [0.01], "batch": 2, "row_tokens": 32}
    with Lab("held_out=3", "max_new_tokens=2", "n_prompts=1", model=bundle, defense="slip") as lab:
        mine = lab.attack("finetune_full", seed=1, **steps)
    with Lab("held_out=3", "max_new_tokens=2", "n_prompts=1", model="random", defense="slip") as lab:
        named = lab.attack("finetune_full", seed=1, **steps)
    assert mine.metrics["value"].drop("attack_s").equals(named.metrics["value"].drop("attack_s"))


def test_promises_are_audited() -> None:
    with Lab(defense="dp_text", model="random") as lab:
        found = lab.attack("distinguishing", inputs=8)
        assert found["measured_epsilon"] <= found["claimed_epsilon"] * 1.01
        assert lab.prepared.guarantee is not None


def test_tuning_is_attacked_where_it_happens() -> None:
    with Lab(*TASK, *KEYED, task="note_type", defense="shaking", model="random") as lab:
        tuned = lab.tune()
        assert "accuracy" in tuned.metrics.index
        assert set(tuned.messages["phase"]) == {"upload", "tuning", "inference"}
        assert tuned.guarantees
        assert repr(tuned) == f"LabTuning(texts=12, messages={[len(view.messages) for view in tuned.views]})"
        found = lab.attack("table_matching", tuned)
        assert found["id_recovery"] == 1
        assert "recovered" in found._repr_html_()
        assert "accuracy" in tuned._repr_html_()
        with pytest.raises(UsageError, match="a lab with a task tunes"):
            lab.ask("Hello")
        with pytest.raises(UsageError, match=r'a lab with a task is attacked where it tunes: lab\.attack\("combined"'):
            lab.attack("combined")


def test_only_some_defenses_tune() -> None:
    with pytest.raises(NotApplicableError, match="nothing can be tuned under smd"):
        Lab(*TASK, task="note_type", defense="smd")


def test_work_on_a_task_leaves_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Lab(*TASK, task="urgency", defense="none", model="random") as lab:
        lab.tune()
        folder = lab._kept.results_dir
        assert folder.is_dir()
    assert not folder.exists()
    assert not [*tmp_path.iterdir()]
