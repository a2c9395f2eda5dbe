"""DP-SGD clips the right gradients, samples as its accountant supposes, and goes on after a kill with equal results."""

import math
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from smd_research.core.errors import ConfigError, UnsupportedModelError
from smd_research.data.texts import Texts
from smd_research.models import sources
from smd_research.training.accounting import Spending
from smd_research.training.buckets import sampled
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.classifier import Classifier
from smd_research.training.kept import TuningRequest, tuned_once
from smd_research.training.methods import DpHead, DpLora, DpSgd, Machine, Private
from smd_research.training.private import GradientsOfTexts, Portions, PrivateLearner, text_losses
from smd_research.training.tuning import Tuned, module_of, tune

pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")

SGD = DpSgd(
    steps=20,
    batch=16,
    learning_rate=1e-2,
    warmup=0.1,
    weight_decay=0.0,
    clip=1.0,
    pooling="mean",
    head="linear",
    checks=4,
    epsilon=200.0,  # beyond what is composed numerically, which takes seconds
    delta=None,
)
GIVEN = {one.name: getattr(SGD, one.name) for one in fields(SGD) if one.init}
LORA = DpLora(**{**GIVEN, "learning_rate": 3e-3}, rank=4, alpha=8, dropout=0.0)
HEAD = DpHead(**{**GIVEN, "learning_rate": 3e-3})
NO_WORDS = torch.zeros(0, dtype=torch.int32)


class Killed(Exception):
    """Stands for a kill."""


@cache
def model(family: str = "llama") -> PreTrainedModel:
    return sources.random(family).model


def texts(n: int, seed: int) -> Texts:
    """Texts of tokens below or above 50, which tells the class, of very different lengths."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    ids = [tuple((rng.integers(10, 50, rng.integers(3, 16)) + 40 * label).tolist()) for label in labels]
    return Texts(tuple(ids), tuple(labels.tolist()))


def run(folder: Path, tuning: Private = SGD, kill_at: int | None = None, classes: int = 2, **more: object) -> Tuned:
    def on_step(step: int, steps: int) -> None:
        if step == kill_at:
            raise Killed

    kinds = (texts(64, 0), texts(24, 1))
    training, held_out = kinds if classes else (Texts(kind.ids) for kind in kinds)
    given = {"classes": classes, "words": NO_WORDS, "seed": 3, "folder": folder, "on_step": on_step, **more}
    return tune(model(), training, held_out, tuning, **given)  # type: ignore[arg-type]


def adapted(tuning: Private, family: str = "llama", classes: int = 2) -> Classifier | CausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = sources.random(family).model.float().train()
        tuning.adapt(whole)
        return module_of(whole, tuning, classes, NO_WORDS)


def weights(tuned: Tuned) -> dict[str, Tensor]:
    return dict(tuned.module.state_dict())


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("classes", [2, 0])
@pytest.mark.parametrize("tuning", [SGD, LORA], ids=["full", "lora"])
def test_the_gradient_of_each_text_is_that_of_a_pass_of_its_own(tuning: Private, family: str, classes: int) -> None:
    """Of texts of different lengths, padded together; norms, attention, MLP, adapters and head alike."""
    module = adapted(tuning, family, classes)
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):  # draws for a batch what it would not draw for a text
            layer.p = 0.0
    if isinstance(tuning, DpLora):  # at the start an adapter adds nothing, and half of its gradients are zero
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    batch = texts(5, 0).batch(np.arange(5))
    gradients = GradientsOfTexts(module)
    torch.autograd.backward(text_losses(module, batch).sum())
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    together = {name: p.grad_sample for name, p in trained.items()}  # type: ignore[attr-defined]
    gradients.remove()
    assert len(trained) > 5
    for row in range(5):
        module.zero_grad()
        alone = texts(5, 0).batch(np.array([row]))
        torch.autograd.backward(text_losses(module, alone).sum())
        for name, parameter in trained.items():
            assert parameter.grad is not None
            scale = float(parameter.grad.abs().max())
            assert torch.allclose(together[name][row], parameter.grad, atol=1e-4 * scale + 1e-7), name
    assert not any("embed" in name or "wte" in name or "wpe" in name or "lm_head" in name for name in trained)


def test_a_layer_whose_rows_share_something_is_refused() -> None:
    class Shares(nn.Linear):
        def forward(self, rows: Tensor) -> Tensor:
            return super().forward(rows - rows.mean(0))

    module = adapted(SGD)
    assert isinstance(module, Classifier)
    assert module.readout is not None
    PrivateLearner(module, Spending(1.0, 0.1, 1e-3, "prv"), 1.0, 4).release()
    module.readout = Shares(module.readout.in_features, 2)
    with pytest.raises(UnsupportedModelError, match="gradient of a single text is not known for"):
        PrivateLearner(module, Spending(1.0, 0.1, 1e-3, "prv"), 1.0, 4)


def test_what_a_text_does_to_a_step_is_bounded_by_the_clip() -> None:
    """Without noise, one text more moves the sum of gradients by the clip at most, however large its own is."""
    from opacus.optimizers import DPOptimizer

    module, clip = adapted(SGD), 0.3
    gradients = GradientsOfTexts(module)
    trained = [p for p in module.parameters() if p.requires_grad]
    inner = DPOptimizer(
        torch.optim.SGD(trained, lr=1.0), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=1
    )

    def summed(rows: int) -> Tensor:
        inner.zero_grad(set_to_none=True)
        torch.autograd.backward(1e3 * text_losses(module, texts(6, 0).batch(np.arange(rows))).sum())
        inner.pre_step()
        return torch.cat([p.grad.flatten() for p in trained if p.grad is not None])

    five, six = summed(5), summed(6)
    assert float((six - five).norm()) == pytest.approx(clip, rel=1e-2)
    gradients.remove()


def test_a_step_has_the_noise_and_the_clip_that_the_accountant_supposes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches AdamW: noise of multiplier times clip on the sum, and of a text no more than the clip."""
    module, clip, multiplier, batch = adapted(SGD), 1e-3, 2.0, 8
    learner = PrivateLearner(module, Spending(multiplier, 0.25, 1e-3, "prv"), clip, batch)
    noisy = learner.configure_optimizers()["optimizer"]
    seen: list[Tensor] = []
    monkeypatch.setattr(
        noisy.original_optimizer, "step", lambda *_: seen.append(torch.cat([p.grad.flatten() for p in noisy.params]))
    )
    monkeypatch.setattr(learner, "optimizers", lambda: SimpleNamespace(optimizer=noisy, step=noisy.step))
    monkeypatch.setattr(learner, "lr_schedulers", lambda: SimpleNamespace(step=lambda: None))
    monkeypatch.setattr(learner, "manual_backward", torch.autograd.backward)
    some, one = texts(6, 0), texts(1, 1)
    first, last = some.batch(np.arange(4)), some.batch(np.arange(4, 6))
    for sample in ([], [first, last], [first, last, one.batch(np.arange(1))]):
        torch.manual_seed(0)
        learner.training_step(sample)
    learner.release()
    nobody, others, more = seen
    assert float(nobody.std()) == pytest.approx(multiplier * clip / batch, rel=0.02)
    assert float((more - others).norm()) == pytest.approx(clip / batch, rel=1e-2)
    assert float((others - nobody).norm()) <= 6 * clip / batch


@given(texts_=st.integers(50, 400), rate=st.floats(0.05, 0.6), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_samples_are_poisson(texts_: int, rate: float, seed: int) -> None:
    """Their sizes vary as a binomial's do and have its mean: shuffled batches of one size would do neither."""
    sizes = np.array([len(rows) for rows in sampled(texts_, rate, 300, seed)])
    spread = np.sqrt(texts_ * rate * (1 - rate))
    assert abs(sizes.mean() - texts_ * rate) < 5 * spread / np.sqrt(300)
    assert 0.75 < sizes.std() / spread < 1.3
    first = np.array([0 in rows for rows in sampled(texts_, rate, 300, seed)])
    assert 0 < first.sum() < 300, "a text comes again before all others came"


def test_a_run_takes_the_samples_that_its_accountant_supposes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, real = [], PrivateLearner.training_step

    def counting(self: PrivateLearner, sample: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        sizes.append(sum(len(portion[0]) for portion in sample))
        real(self, sample)

    monkeypatch.setattr(PrivateLearner, "training_step", counting)
    tuned = run(tmp_path, replace(SGD, steps=12, checks=2))
    assert len(sizes) == tuned.outcome.steps == 12
    assert len(set(sizes)) > 4
    assert np.mean(sizes) == pytest.approx(16, abs=5 * np.sqrt(16 * 0.75 / 12))
    assert SGD.spending(64).rate == 16 / 64


@pytest.mark.parametrize("tuning", [SGD, LORA], ids=["full", "lora"])
def test_private_tuning_learns_and_goes_on_after_a_kill_with_equal_results(tmp_path: Path, tuning: Private) -> None:
    before = {name: value.clone() for name, value in model().state_dict().items()}
    random = torch.get_rng_state()
    weak = replace(tuning, epsilon=1000.0, steps=24)
    unbroken = run(tmp_path / "a", weak)
    with pytest.raises(Killed):
        run(tmp_path / "b", weak, kill_at=14)
    found = run(tmp_path / "b", weak)
    assert all(torch.equal(value, weights(found)[name]) for name, value in weights(unbroken).items())
    assert unbroken.outcome.loss < np.log(2) - 0.1
    assert all(torch.equal(before[name], value) for name, value in model().state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert weights(unbroken).keys() == {f"model.{name}" for name in before} | {"readout.weight", "readout.bias"}
    assert not any(hasattr(p, "grad_sample") or hasattr(p, "summed_grad") for p in unbroken.module.parameters())


def test_a_head_alone_learns_and_the_model_stays(tmp_path: Path) -> None:
    found = run(tmp_path / "head", replace(HEAD, epsilon=1000.0))
    assert found.outcome.loss < np.log(2) - 0.05
    before = model().state_dict()
    assert all(torch.equal(before[name], value) for name, value in found.model.state_dict().items())
    with pytest.raises(ConfigError, match="task with classes"):
        run(tmp_path / "next", HEAD, classes=0)
    with pytest.raises(ConfigError, match="head=words leaves nothing"):
        replace(HEAD, head="words")


def test_adapters_change_and_come_back_equal(tmp_path: Path) -> None:
    """Of Opacus with PEFT it was reported that adapters end up other than they were trained, the loss looking right."""
    held_out = texts(24, 1)

    def logits(tuned: Tuned) -> Tensor:
        assert isinstance(tuned.module, Classifier)
        with torch.inference_mode():
            return tuned.module(*held_out.batch(np.arange(24))[:2])

    request = TuningRequest("model", texts(64, 0), held_out, LORA, 2, NO_WORDS, 3)
    tuned = tuned_once(request, model(), tmp_path, lambda: run(tmp_path, LORA))
    again = tuned_once(request, model(), tmp_path, lambda: pytest.fail("it was kept"))
    names = [
        name for name, value in model().state_dict().items() if not torch.equal(value, tuned.model.state_dict()[name])
    ]
    assert {part for name in names for part in ("q_proj", "v_proj", "down_proj") if part in name} == {
        "q_proj", "v_proj", "down_proj",
    }  # fmt: skip
    assert not any("norm" in name or "embed" in name for name in names)
    assert torch.allclose(logits(tuned), logits(again), atol=1e-6)
    with torch.inference_mode():
        loss = nn.functional.cross_entropy(logits(again), torch.tensor(held_out.labels))
    assert float(loss) == pytest.approx(tuned.outcome.loss, rel=1e-4)


def test_noise_is_added_to_an_empty_sample_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that finds nobody looks like any other; the table stays."""
    import smd_research.training.tuning as module

    monkeypatch.setattr(module, "sampled", lambda n, rate, steps, seed: [np.array([], dtype=np.int64)] * steps)
    tuned = run(tmp_path, replace(SGD, steps=2, checks=1))
    assert tuned.outcome.steps == 2
    moved = [not torch.equal(value, tuned.model.state_dict()[name]) for name, value in model().state_dict().items()]
    assert 0.5 < np.mean(moved) < 1
    assert torch.equal(tuned.model.get_input_embeddings().weight, model().get_input_embeddings().weight)


def test_portions_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import smd_research.training.private as module

    short = replace(SGD, steps=4, checks=1)
    whole = run(tmp_path / "a", short)
    monkeypatch.setattr(module, "HELD", 1)
    apart = run(tmp_path / "b", short)
    assert all(torch.allclose(value, weights(apart)[name], atol=2e-3) for name, value in weights(whole).items())
    portions = Portions(texts(64, 0), [np.arange(10)], 4)[0]
    assert [len(ids) for ids, _, _ in portions] == [4, 4, 2]


def test_of_the_next_token_a_text_is_the_record(tmp_path: Path) -> None:
    """Texts are not packed, and each weighs the same however long it is; one of a single token weighs nothing."""
    tuned = run(tmp_path, classes=0)
    start = CausalLM(model(), Optimisation(0.0, 1, 1))
    kind = Texts((*texts(6, 5).ids, (12,)))
    ids, lengths, labels = kind.batch(np.arange(7))
    with torch.inference_mode():
        losses = text_losses(start, (ids, lengths, labels))
        after = text_losses(tuned.module, (ids, lengths, labels))
        alone = [text_losses(start, kind.batch(np.array([row])))[0] for row in range(6)]
    assert torch.allclose(losses[:6], torch.stack(alone), atol=1e-4)
    assert losses[6] == 0
    assert after[:6].mean() < losses[:6].mean()


def test_what_is_promised_names_unit_noise_and_who_composed() -> None:
    asked = replace(SGD, epsilon=8.0)
    promise = asked.guarantee(64, SGD.steps)
    assert promise.unit == "text tuned on"
    assert 7.9 < promise.epsilon <= 8
    assert promise.delta == pytest.approx(64**-1.1)
    assert promise.sensitivity == promise.clip == SGD.clip
    assert "Poisson samples at rate 0.25" in promise.assumptions
    assert "composed by prv" in promise.assumptions
    assert asked.guarantee(64, 5).epsilon < promise.epsilon


def test_texts_of_one_run_are_not_composed_as_if_each_had_its_own() -> None:
    """A group of k texts costs k epsilon at a delta of more than e to the (k - 1) epsilon times one text's."""
    promise = replace(SGD, epsilon=8.0).guarantee(64, SGD.steps)
    assert promise.of_text(16) == math.inf
    assert "basic composition" not in str(promise)
    assert "k texts at once" in promise.composition


def test_values_out_of_range_are_refused(tmp_path: Path) -> None:
    for wrong, said in (
        ({"epsilon": 0.0}, "tuning.epsilon=0 .*positive"),
        ({"epsilon": -1.0}, "tuning.epsilon=-1 .*positive"),
        ({"delta": 0.0}, "tuning.delta=0 .*between 0 and 1"),
        ({"delta": 1.0}, "tuning.delta=1 .*between 0 and 1"),
        ({"clip": 0.0}, "tuning.clip=0 .*positive"),
        ({"clip": math.nan}, "tuning.clip=nan .*positive"),
        ({"clip": math.inf}, "tuning.clip=inf clips nothing"),
        ({"learning_rate": -1.0}, "tuning.learning_rate=-1 .*positive and finite"),
        ({"learning_rate": math.inf}, "tuning.learning_rate=inf .*positive and finite"),
        ({"warmup": 1.5}, "tuning.warmup=1.5 .*between 0 and 1"),
        ({"warmup": math.nan}, "tuning.warmup=nan .*between 0 and 1"),
        ({"weight_decay": -0.1}, "tuning.weight_decay=-0.1 .*0 or more"),
        ({"label_epsilon": 0.0}, "tuning.label_epsilon=0 .*positive"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace(SGD, **wrong)  # type: ignore[arg-type]
    for adapters in ({"rank": 0}, {"alpha": 0.0}, {"alpha": math.nan}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match="tuning: rank is 1 or more"):
            replace(LORA, **adapters)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"tuning.batch=65: .* 64 texts"):
        run(tmp_path, replace(SGD, batch=65))
    with pytest.raises(ConfigError, match=r"trainer.devices=2: .*one device"):
        run(tmp_path, machine=Machine(devices=2))
