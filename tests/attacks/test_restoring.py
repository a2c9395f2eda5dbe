"""Restoration by training: it works on text, not on noise; and the control knows nothing of the exposed weights."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import log

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from attacks.base import Public
from attacks.weights.exposed_weights import ExposedWeights
from attacks.weights.finetuning.methods import FromScratch, FullFineTuning, LoraFineTuning, NullSpaceFineTuning
from attacks.weights.finetuning.null_space import Adapted
from attacks.weights.finetuning.text import Budget, TrainingRows, rows
from attacks.weights.finetuning.training import FineTuning, TrainedModel, Trainee
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import WeightGuess
from smd_research.core.seeds import generator
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.mechanisms.decomposition.splits import split
from smd_research.models import Bundle, sources
from smd_research.models.linears import linear_layers, weight_of, with_weights

RANK = 8
OPTIONS = {
    "tokens": 1024,
    "steps": 12,
    "batch": 2,
    "row_tokens": 32,
    "validation": 0.1,
    "search_steps": 4,
    "weight_decay": 0.0,
}
TRAINING: dict[str, Callable[..., FineTuning]] = {
    "full": lambda **more: FullFineTuning(**{**OPTIONS, "learning_rates": [1e-3], **more}),
    "lora": lambda **more: LoraFineTuning(rank=RANK, **{**OPTIONS, "learning_rates": [1e-2], **more}),
    "null_space": lambda **more: NullSpaceFineTuning(**{**OPTIONS, "learning_rates": [3e-2], **more}),
    "from_scratch": lambda **more: FromScratch(**{**OPTIONS, "learning_rates": [3e-3], **more}),
}


@cache
def original() -> Bundle:
    return sources.embedded()


def texts(part: str, count: int) -> tuple[tuple[int, ...], ...]:
    return tuple(p.ids for p in prompts(generate("mixed", part, count, 0), original().tokenizer, 64, 0))


@cache
def public(trained: bool = False, protected: str = ".0.") -> Public:
    """A random model, or the shipped one, with its first block split, or other layers named."""
    whole = original() if trained else sources.random("llama")
    layers = {name: weight_of(m).detach() for name, m in linear_layers(whole).items()}
    ranks = {name: RANK if protected in name else 0 for name in layers}
    exposed = {name: split(layers[name], k, "svd", generator(0, name)).exposed for name, k in ranks.items() if k}
    return Public(with_weights(whole, exposed), "slip", (SecretParts((), ranks),), texts("train", 40))


def restored(attack: FineTuning, known: Public, seed: int = 0) -> WeightGuess:
    attack.fit(known)
    return attack.restore([], np.random.default_rng(seed))


@torch.inference_mode()
def loss(known: Public, guess: WeightGuess) -> float:
    """Of the restored model on held-out text, nats a token."""
    state = {**known.bundle.model.state_dict(), **guess.weights}
    total = tokens = 0.0
    for document in texts("validation", 8):
        ids = torch.tensor([document])
        out = torch.func.functional_call(
            known.bundle.model, state, kwargs={"input_ids": ids[:, :-1]}, tie_weights=False
        )
        total += float(nn.functional.cross_entropy(out.logits[0], ids[0, 1:], reduction="sum"))
        tokens += len(document) - 1
    return total / tokens


def shuffled(known: Public) -> Public:
    """The same tokens in no order: what is left to learn is how often each occurs."""
    rng = np.random.default_rng(0)
    flat = rng.permutation([i for document in known.corpus for i in document]).tolist()
    return replace(known, corpus=(tuple(flat),))


@pytest.mark.parametrize("method", ["full", "lora", "null_space"])
def test_text_restores_a_model_and_noise_does_not(method: str) -> None:
    known = public(trained=True, protected=".")
    out, true = loss(known, WeightGuess({})), loss(Public(original(), "none"), WeightGuess({}))
    read = loss(known, restored(TRAINING[method](), known))
    noise = loss(known, restored(TRAINING[method](), shuffled(known)))
    assert true < read < out - 0.1 * (out - true)
    assert out - noise < 0.5 * (out - read)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "null_space"])
def test_a_longer_training_restores_a_third_and_more(method: str) -> None:
    known = replace(public(trained=True, protected="."), corpus=texts("train", 160))
    out, true = loss(known, WeightGuess({})), loss(Public(original(), "none"), WeightGuess({}))
    longer = TRAINING[method](tokens=8192, steps=25, batch=4, row_tokens=128)
    assert loss(known, restored(longer, known)) < out - 0.34 * (out - true)


@pytest.mark.parametrize("shape", [(24, 24), (40, 24), (24, 40)])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_the_true_core_gives_the_original_matrix_exactly(shape: tuple[int, int], kind: str) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parts = split(weight, 4, "svd", np.random.default_rng(0))
    adapter = Adapted.of(layer(parts.exposed, kind), 4)
    secret = (parts.left @ parts.right).float()
    with torch.no_grad():
        if adapter.core is not None:
            adapter.core.copy_(adapter.left.T @ secret @ adapter.right.T)
        elif isinstance(adapter.left, nn.Parameter):
            adapter.left.copy_(secret @ adapter.right.T)
        else:
            adapter.right.copy_(adapter.left.T @ secret)
    merged = adapter.merged().T if kind == "conv1d" else adapter.merged()
    assert torch.allclose(merged, weight, atol=1e-4)
    x = torch.randn(3, shape[1])
    assert torch.allclose(adapter(x), x @ weight.T, atol=1e-3)
    unknown = 16 if shape[0] == shape[1] else 4 * max(shape)
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == unknown


def layer(weight: torch.Tensor, kind: str) -> nn.Module:
    m, n = weight.shape
    made = Conv1D(m, n) if kind == "conv1d" else nn.Linear(n, m, bias=False)
    made.weight = nn.Parameter(weight.T.contiguous() if kind == "conv1d" else weight)
    nn.init.zeros_(made.bias) if made.bias is not None else None
    return made.requires_grad_(False)


def test_a_filled_hole_does_not_show_where_the_secret_lies() -> None:
    weight = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    held = {}
    for kind in ("svd", "svd_fill"):
        parts = split(weight, 4, kind, np.random.default_rng(0))
        adapter = Adapted.of(layer(parts.exposed, "linear"), 4)
        secret = parts.left @ parts.right
        held[kind] = float((adapter.left.T @ secret @ adapter.right.T).norm() / secret.norm())
    assert held["svd"] > 0.999
    assert held["svd_fill"] < 0.5


def test_every_adapter_starts_at_the_exposed_model() -> None:
    known = public()
    for method in ("lora", "null_space"):
        attack = TRAINING[method]()
        attack.fit(known)
        for name, weight in attack.trainee().weights().items():
            assert torch.allclose(weight, known.bundle.model.state_dict()[name], atol=1e-6), name


def test_the_control_does_not_read_the_exposed_weights() -> None:
    """Two models of one shape, the same text: the same result, to the last bit."""
    attack = TRAINING["from_scratch"](steps=2)
    whole = replace(public(), bundle=sources.random("llama"), parameters={})
    one, two = restored(attack, public()), restored(attack, whole)
    assert one.weights.keys() == two.weights.keys()
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


@pytest.mark.parametrize("method", TRAINING)
def test_a_guess_depends_on_the_seed_alone_and_leaves_the_device_s_model_as_it_was(method: str) -> None:
    known, attack = public(), TRAINING[method](steps=2)
    before = known.bundle.fingerprint()
    torch.manual_seed(1)
    one = restored(attack, known)
    torch.manual_seed(2)
    two, other = restored(attack, known), restored(attack, known, seed=1)
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert any(not torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert known.bundle.fingerprint() == before
    assert set(one.weights) <= set(known.bundle.model.state_dict())
    assert one.spent.steps == 2
    assert one.facts["attack_tokens"] == 1024


def test_the_learning_rate_of_the_best_short_run_is_taken_unless_it_is_settled() -> None:
    attack = TRAINING["null_space"](learning_rates=[1e-9, 3e-2], steps=8)
    assert restored(attack, public()).facts["learning_rate"] == 3e-2
    attack.settle(1e-9)
    assert restored(attack, public()).facts["learning_rate"] == 1e-9


def test_rows_are_packed_documents_and_end_with_the_budget() -> None:
    known = replace(public(), corpus=((2, 11, 12), (2, 13), (2, 14, 15, 16), (99,) * 50))
    end = known.bundle.end_id
    assert end is not None
    own = rows(known, Budget(tokens=11, steps=1, batch=1, row_tokens=4, validation=0.5))
    assert torch.cat([own.validation, own.training]).flatten().tolist() == [2, 11, 12, end, 2, 13, end, 2]


def test_more_text_is_asked_for_only_as_far_as_the_budget_goes() -> None:
    asked = []

    def more(tokens: int) -> tuple[tuple[int, ...], ...]:
        asked.append(tokens)
        return ((7,) * tokens,)

    known = replace(public(), corpus=(), more=more)
    rows(known, Budget(tokens=64, steps=1, batch=1, row_tokens=8, validation=0.1))
    assert asked == [64]


def test_what_does_not_apply_is_refused_in_a_line() -> None:
    with pytest.raises(NotApplicableError, match="tokens of public text"):
        restored(TRAINING["full"](tokens=10**6), public())
    with pytest.raises(NotApplicableError, match="public ranks"):
        restored(TRAINING["lora"](), replace(public(), parameters={}))
    with pytest.raises(NotApplicableError, match="nothing to restore"):
        restored(TRAINING["null_space"](), public(protected="none"))


@pytest.mark.parametrize(
    "wrong", [{"tokens": 40}, {"steps": 0}, {"learning_rates": []}, {"learning_rates": [-1.0]}, {"validation": 1.0}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TRAINING["full"](**wrong)
    with pytest.raises(ConfigError):
        LoraFineTuning(rank=0, **{**OPTIONS, "learning_rates": [1e-3]})


def test_the_floor_guesses_nothing() -> None:
    assert not ExposedWeights().restore([], np.random.default_rng(0)).weights


@pytest.mark.parametrize(("best", "tried"), [(3e-3, 3), (1e-3, 4), (1e-4, 6), (1e-2, 4), (1e9, 8)])
def test_the_control_searches_until_its_rate_lies_between_others(best: float, tried: int) -> None:
    """A rate at the end of the grid is where the grid ends, not where the loss is lowest."""
    attack = FromScratch(**{**OPTIONS, "learning_rates": [1e-3, 3e-3, 1e-2]})
    asked: list[float] = []

    def run(own: object, rate: float, seed: int) -> TrainedModel:
        asked.append(rate)
        return TrainedModel(Trainee(torch.nn.Module()), abs(log(rate / best)), rate, steps=1)  # type: ignore[arg-type]

    attack.tried = run  # type: ignore[method-assign]
    found = attack.search(None, 0)  # type: ignore[arg-type]
    assert len(set(asked)) == len(asked) == tried
    assert found.rate == min(asked, key=lambda rate: abs(log(rate / best)))


@pytest.mark.parametrize(("search_steps", "runs"), [(None, 2), (3, 2), (1, 3)])
def test_the_best_whole_run_of_a_search_is_not_trained_again(search_steps: int | None, runs: int) -> None:
    """And it is the same as the run that a single rate gets."""
    options = {**OPTIONS, "steps": 3, "search_steps": search_steps}
    attack = TRAINING["full"](**{**options, "learning_rates": [1e-3, 1e-2]})
    train, trained = attack.train, []

    def counted(own: TrainingRows, rate: float, steps: int, seed: int) -> TrainedModel:
        trained.append(rate)
        return train(own, rate, steps, seed)

    attack.train = counted  # type: ignore[method-assign]
    found = restored(attack, public())
    assert len(trained) == runs
    alone = restored(TRAINING["full"](**{**options, "learning_rates": [found.facts["learning_rate"]]}), public())
    assert found.facts == alone.facts
    assert all(torch.equal(found.weights[name], alone.weights[name]) for name in found.weights)
