"""Tuning learns, keeps its best state, leaves its start as it was, and goes on after a kill as if nothing had been."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from smd_research.core.errors import ConfigError
from smd_research.data.texts import Texts
from smd_research.models import sources
from smd_research.training.buckets import planned
from smd_research.training.classifier import Classifier
from smd_research.training.flops import forward_flops, matrix_parameters, training_flops
from smd_research.training.kept import TuningRequest, tuned_once, tuned_weights
from smd_research.training.methods import Full, Lora, Machine, Tuning
from smd_research.training.tuning import Tuned, tune

FULL = Full(
    steps=24,
    batch=8,
    learning_rate=3e-3,
    warmup=0.1,
    weight_decay=0.0,
    clip=1.0,
    pooling="mean",
    head="linear",
    freeze_table=False,
    checks=4,
    patience=None,
    precision="32-true",
)
LORA = Lora(**{**vars(FULL), "freeze_table": True, "learning_rate": 1e-2}, rank=4, alpha=8, dropout=0.2)
NO_WORDS = torch.zeros(0, dtype=torch.int32)


class Killed(Exception):
    """Stands for a kill."""


@cache
def model() -> PreTrainedModel:
    return sources.random("llama").model


def texts(n: int, seed: int) -> Texts:
    """Texts of tokens below or above 50, which tells the class, of very different lengths."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    ids = [tuple((rng.integers(10, 50, rng.integers(3, 16)) + 40 * label).tolist()) for label in labels]
    return Texts(tuple(ids), tuple(labels.tolist()))


def run(
    folder: Path,
    tuning: Tuning = FULL,
    kill_at: int | None = None,
    classes: int = 2,
    words: Tensor = NO_WORDS,
    machine: Machine | None = None,
) -> Tuned:
    def on_step(step: int, steps: int) -> None:
        if step == kill_at:
            raise Killed

    kinds = (texts(64, 0), texts(24, 1))
    training, held_out = kinds if classes else (Texts(kind.ids) for kind in kinds)
    more = {"classes": classes, "words": words, "seed": 3, "folder": folder, "machine": machine, "on_step": on_step}
    return tune(model(), training, held_out, tuning, **more)  # type: ignore[arg-type]


def accuracy(tuned: Tuned) -> float:
    kind = texts(50, 2)
    assert isinstance(tuned.module, Classifier)
    ids, lengths, labels = kind.batch(np.arange(len(kind.ids)))
    with torch.inference_mode():
        return float((tuned.module(ids, lengths).argmax(-1) == labels).float().mean())


def same(one: Tuned, two: Tuned) -> bool:
    first, second = one.module.state_dict(), two.module.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("tuning", [FULL, LORA], ids=["full", "lora"])
def test_tuning_learns_and_goes_on_after_a_kill_with_equal_results(tmp_path: Path, tuning: Tuning) -> None:
    before = {name: value.clone() for name, value in model().state_dict().items()}
    random = torch.get_rng_state()
    unbroken = run(tmp_path / "a", tuning)
    assert accuracy(unbroken) > 0.8
    for stop in (8, 15):
        with pytest.raises(Killed):
            run(tmp_path / "b", tuning, stop)
    assert same(run(tmp_path / "b", tuning), unbroken)
    assert unbroken.outcome.steps == tuning.steps
    assert unbroken.outcome.flops > 0
    after = model().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the start is never modified"
    assert torch.equal(random, torch.get_rng_state())
    assert unbroken.model.state_dict().keys() == after.keys(), "what comes back is a stock model"
    assert not any(p.requires_grad for p in unbroken.model.parameters())


def test_a_frozen_table_stays_and_another_moves(tmp_path: Path) -> None:
    table = model().get_input_embeddings().weight
    short = replace(FULL, steps=4, checks=1)
    moved, frozen = (run(tmp_path / str(kept), replace(short, freeze_table=kept)).model for kept in (False, True))
    assert torch.equal(frozen.get_input_embeddings().weight, table)
    changed = (moved.get_input_embeddings().weight != table).any(1)
    assert changed[10:90].any()
    assert not changed[200:].any(), "rows of tokens that do not occur stay, without weight decay"


def test_tuning_stops_early_keeps_the_best_state_and_does_not_forget_it(tmp_path: Path) -> None:
    eager = replace(FULL, learning_rate=0.5, clip=100.0, checks=12, patience=2)
    unbroken = run(tmp_path / "a", eager)
    assert unbroken.outcome.steps < eager.steps
    with pytest.raises(Killed):
        run(tmp_path / "b", eager, unbroken.outcome.steps)  # all steps done, the last check not
    assert same(run(tmp_path / "b", eager), unbroken)
    assert same(run(tmp_path / "a", eager), unbroken), "stopped, then killed before its result was kept"


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_changes_nothing(pooling: str, tmp_path: Path) -> None:
    module = run(tmp_path, replace(FULL, steps=1, checks=1, pooling=pooling)).module
    assert isinstance(module, Classifier)
    kind = texts(6, 4)
    with torch.inference_mode():
        ids, lengths, _ = kind.batch(np.arange(6))
        together = module(ids, lengths)
        alone = torch.cat([module(*kind.batch(np.array([row]))[:2]) for row in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_words_stand_for_classes(tmp_path: Path) -> None:
    tuned = run(tmp_path, replace(FULL, head="words"), words=torch.tensor([7, 9], dtype=torch.int32))
    assert isinstance(tuned.module, Classifier)
    assert tuned.module.readout is None
    assert accuracy(tuned) > 0.9


def test_the_next_token_is_tuned_without_classes(tmp_path: Path) -> None:
    tuned = run(tmp_path, replace(FULL, steps=12), classes=0)
    with torch.inference_mode():
        loss = model()(input_ids=torch.tensor([texts(1, 1).ids[0]])).logits
    assert tuned.outcome.loss < float(np.log(loss.shape[-1])) - 1


def test_a_result_is_kept_for_its_request_alone(tmp_path: Path) -> None:
    calls = []

    def count() -> Tuned:
        calls.append(1)
        return run(tmp_path, replace(FULL, steps=2, checks=1))

    request = TuningRequest("model", texts(3, 0), texts(3, 1), FULL, 2, NO_WORDS, 3)
    first = tuned_once(request, model(), tmp_path, count)
    again = tuned_once(request, model(), tmp_path, count)
    assert len(calls) == 1
    assert same(first, again)
    assert first.outcome == again.outcome
    assert "readout.weight" not in tuned_weights(tmp_path)
    assert not list(tmp_path.glob("*.ckpt"))
    tuned_once(replace(request, seed=4), model(), tmp_path, count)
    assert len(calls) == 2


@given(n=st.integers(1, 60), batch=st.integers(1, 9), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_every_text_comes_once_before_any_comes_again(n: int, batch: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 20, n)
    a_pass = -(-n // batch)
    plan = planned(lengths, batch, 2 * a_pass, seed)
    assert len(plan) == 2 * a_pass
    for half in (plan[:a_pass], plan[a_pass:]):
        assert sorted(np.concatenate(half).tolist()) == list(range(n))


def test_batches_hold_texts_of_about_equal_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    padded = sum(lengths[rows].max() * len(rows) for rows in planned(lengths, 8, 50, 0))
    assert padded < 1.1 * lengths.sum()


def test_operations_are_counted_by_hand() -> None:
    table = model().get_input_embeddings().weight.numel()
    matrices = sum(p.numel() for p in model().parameters() if p.ndim > 1) - table
    assert matrix_parameters(model()) == matrices
    assert forward_flops(model(), 10) == 20 * matrices
    assert training_flops(model(), matrices + table, 10) == 60 * matrices
    assert training_flops(model(), 0, 10) == 40 * matrices


def test_adapters_that_would_leave_the_table_free_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tuning\.freeze_table=false: adapters leave the table"):
        replace(LORA, freeze_table=False)


def test_values_out_of_range_are_refused(tmp_path: Path) -> None:
    for wrong in ({"steps": 0}, {"checks": 99}, {"batch": 0}, {"pooling": "max"}, {"head": "none"}, {"patience": 0}):
        with pytest.raises(ConfigError, match="tuning"):
            replace(FULL, **wrong)  # type: ignore[arg-type]
    for machine, tuning in ((Machine(strategy="nope"), FULL), (Machine(), replace(FULL, precision="7-bit"))):
        with pytest.raises(ConfigError, match=r"trainer: .*(nope|7-bit)"):
            run(tmp_path, tuning, machine=machine)
    with pytest.raises(ConfigError, match=r"trainer.devices=2: a cell trains on one device"):
        run(tmp_path, machine=Machine(devices=2))
    with pytest.raises(ConfigError, match="one held out"):
        tune(model(), texts(4, 0), Texts(()), FULL, classes=2, words=NO_WORDS, seed=0, folder=tmp_path)
