"""A value hidden in a known template is found among a thousand, proved, and only in its own transcript."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from attacks.base import Public, Template
from attacks.prompts.guess_and_verify import GuessAndVerify
from experiments.trials.hiding import Hidden, Register, hide
from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.messages import PartialAttention
from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Prompt
from smd_research.data.sources import Synthetic
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.smd import Smd
from smd_research.models import sources
from smd_research.models.bundle import Bundle

NEW = 8


@cache
def embedded() -> Bundle:
    return sources.embedded()


@cache
def names() -> Register:
    return Register.of(Synthetic(), "name", embedded().tokenizer, 0, size=9000)


@cache
def cases() -> tuple[tuple[Prompt, Hidden], ...]:
    """Prompts of the validation split with a name that a thousand others could stand for."""
    found = []
    for number, prompt in enumerate(tokenised(generate("mixed", "validation", 24, 0), embedded().tokenizer, 32, 0)):
        hidden = hide(prompt, embedded().tokenizer, names(), 1000, np.random.default_rng(number))
        if hidden and len(hidden.template.candidates) == 1000:
            found.append((prompt, hidden))
    return tuple(found[:3])


@cache
def view_of(bundle: Bundle, ids: tuple[int, ...], wire_dtype: str = "fp32", new: int = NEW) -> AdversaryView:
    with Smd(wire_dtype).prepare(bundle).deploy(Boundary()) as deployment:
        deployment.generate(Prompt("p", "", ids), new)
        return deployment.boundary.view(deployment.shows)


def fitted(bundle: Bundle, **options: int) -> GuessAndVerify:
    attack = GuessAndVerify(**options)
    attack.fit(Public(bundle, "smd"))
    return attack


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16", "fp16"])
def test_a_name_among_a_thousand_is_found_and_proved(wire_dtype: str) -> None:
    attack = fitted(embedded())
    assert len(cases()) == 3
    for prompt, hidden in cases():
        template = hidden.template
        guess = attack.fill(view_of(embedded(), prompt.ids, wire_dtype), template, rng())
        assert guess.choices[0] == hidden.truth
        assert guess.certified
        assert guess.ids[template.start : template.end] == prompt.ids[template.start : template.end]
        assert set(guess.ids[: template.start] + guess.ids[template.end :]) <= {-1}
        assert guess.spent.candidates == 1000
        assert sorted(guess.choices) == list(range(1000))


def test_another_prompts_transcript_names_nobody() -> None:
    attack = fitted(embedded())
    views = [view_of(embedded(), prompt.ids) for prompt, _ in cases()]
    hits = []
    for number, (_, hidden) in enumerate(cases()):
        for other in set(range(len(views))) - {number}:
            guess = attack.fill(views[other], hidden.template, rng())
            assert not guess.certified
            hits.append(guess.choices[0] == hidden.truth)
    assert sum(hits) <= 1


def test_a_value_that_is_not_in_the_register_is_not_certified() -> None:
    prompt, hidden = cases()[0]
    others = tuple(c for i, c in enumerate(hidden.template.candidates) if i != hidden.truth)
    guess = fitted(embedded()).fill(
        view_of(embedded(), prompt.ids), dataclasses.replace(hidden.template, candidates=others), rng()
    )
    assert not guess.certified
    assert guess.residual is not None
    assert guess.residual > 10


def test_noise_on_the_averages_hides_nobody_but_takes_the_proof() -> None:
    prompt, hidden = cases()[1]
    view = view_of(embedded(), prompt.ids)
    generator = torch.Generator().manual_seed(0)
    noisy = tuple(
        (way, dataclasses.replace(m, a=m.a + 0.3 * torch.randn(m.a.shape, generator=generator)))
        if isinstance(m, PartialAttention)
        else (way, m)
        for way, m in view.messages
    )
    guess = fitted(embedded()).fill(dataclasses.replace(view, messages=noisy), hidden.template, rng())
    assert guess.choices[0] == hidden.truth, "maxima and masses are exact"
    assert not guess.certified


def random_case(bundle: Bundle, start: int) -> tuple[tuple[int, ...], Hidden]:
    """A gap of three tokens among nine, and 60 values for it that differ in one token at least."""
    generator = np.random.default_rng(7)
    ids = tuple(generator.integers(3, bundle.geometry.vocab, 9).tolist())
    true = ids[start : start + 3]
    values = [tuple(generator.integers(3, bundle.geometry.vocab, 3).tolist()) for _ in range(40)]
    values += [(*true[:2], int(token)) for token in generator.integers(3, bundle.geometry.vocab, 10)]
    values += [true[::-1], (true[1], true[0], true[2])]
    values.insert(17, true)
    gap = (*ids[:start], -1, -1, -1, *ids[start + 3 :])
    return ids, Hidden(Template(gap, start, start + 3, tuple(values)), 17)


@pytest.mark.parametrize("start", [0, 3, 6])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mistral", "gemma2", "opt"])
def test_every_family_and_every_place_of_the_gap(family: str, start: int) -> None:
    bundle = sources.random(family)
    ids, hidden = random_case(bundle, start)
    for layers in (1, 4):
        guess = fitted(bundle, layers=layers, finalists=5).fill(view_of(bundle, ids, new=3), hidden.template, rng())
        assert guess.choices[0] == hidden.truth
        assert guess.certified
        assert guess.ranked[start][0] == ids[start]


def test_nothing_seen_is_nothing_guessed() -> None:
    prompt, hidden = cases()[0]
    guess = fitted(embedded()).fill(view_of(embedded(), prompt.ids, new=1), hidden.template, rng())
    assert set(guess.ids) == {-1}
    assert guess.certified is False
    assert guess.choices == ()


@pytest.mark.parametrize("option", ["candidates", "layers", "finalists", "chunk", "ranked"])
def test_numbers_below_one_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        GuessAndVerify(**{option: 0})
