"""Rewritten text is read where the mechanism writes little but the text, and at chance where it writes noise."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.base import Public, Template
from attacks.prompts.rewrite_posterior import RewritePosterior, RewriteRegister
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess
from smd_research.data.prompts import Prompt
from smd_research.data.reference import PythonReference
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.dp_rewrite import DpRewrite
from smd_research.models import Bundle, sources

TOKENS = 10
MASKED = {"mechanism": "masked", "reader_steps": 80, "reader_width": 64, "reader_layers": 1, "reader_tokens": 16}
AT_ONCE: dict[str, object] = {"template": "{text}", "epsilon": 1e6, "low": -2.0, "high": 2.0}
"""The model goes on where the text ends, almost greedily: what a random model writes hangs on the last token."""
WIDE = {"low": -20.0, "high": 60.0}
"""Bounds that cut nothing: what epsilon alone hides."""


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def corpus(llama: Bundle) -> tuple[tuple[int, ...], ...]:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 60, 0), llama.tokenizer, 40, 0))


@pytest.fixture(scope="module")
def asked(llama: Bundle) -> list[Prompt]:
    return tokenised(generate("mixed", "validation", 6, 0), llama.tokenizer, TOKENS, 0)


def attacked(
    attack: RewritePosterior | RewriteRegister,
    options: dict[str, object],
    bundle: Bundle,
    corpus: tuple[tuple[int, ...], ...],
    prompts: list[Prompt],
) -> list[AdversaryView]:
    """The attack fitted, and the view of each prompt."""
    boundary, views = Boundary(), []
    prepared = DpRewrite(**options).prepare(bundle, PublicText(corpus))  # type: ignore[arg-type]
    attack.fit(Public(bundle, "dp_rewrite", prepared.parameters, corpus))
    with prepared.deploy(boundary) as deployment:
        for prompt in prompts:
            deployment.generate(prompt, 1)
            views.append(boundary.view(deployment.shows))
    return views


def right(guess: Guess, prompt: Prompt) -> float:
    return float(np.mean([a == b for a, b in zip(guess.ids[1:], prompt.ids[1:], strict=True)]))


def scores(guesses: list[Guess], prompts: list[Prompt]) -> tuple[float, float]:
    """How much of its own prompt each guess has right, and of all others."""
    table = np.array([[right(guess, prompt) for prompt in prompts] for guess in guesses])
    own = np.eye(len(prompts), dtype=bool)
    return float(table[own].mean()), float(table[~own].mean())


def guessed(
    options: dict[str, object],
    bundle: Bundle,
    corpus: tuple[tuple[int, ...], ...],
    prompts: list[Prompt],
    **more: object,
) -> list[Guess]:
    attack = RewritePosterior(**{"shortlist": 16, "beam": 4, "sweeps": 2, "candidates": 48, **more})  # type: ignore[arg-type]
    views = attacked(attack, options, bundle, corpus, prompts)
    return [attack.recover(view, np.random.default_rng(0)) for view in views]


def test_a_masked_text_is_read_at_a_large_epsilon_and_better_than_it_stands(
    llama: Bundle, corpus: tuple[tuple[int, ...], ...]
) -> None:
    """On texts that the masked model knows."""
    prompts = [Prompt(str(i), "", document[:TOKENS]) for i, document in enumerate(corpus[:6])]
    own, others = scores(guessed({**MASKED, **WIDE, "epsilon": 1e5}, llama, corpus, prompts), prompts)
    assert own > 0.75
    assert others < 0.3
    noisy = {**MASKED, "epsilon": 16.0}
    own, _ = scores(guessed(noisy, llama, corpus, prompts), prompts)
    stands, _ = scores(guessed(noisy, llama, corpus, prompts, mode="read"), prompts)
    assert own > stands


@pytest.mark.slow
def test_a_masked_text_that_the_model_does_not_know_is_read_with_public_text_of_its_kind() -> None:
    """A language model alone misleads there: with half of the prior, less is read than stands there."""
    embedded, manual = sources.embedded(), PythonReference()
    asked = tokenised(manual.documents("evaluation", 6, 0), embedded.tokenizer, 2 * TOKENS, 0)
    public = tuple(one.ids for one in tokenised(manual.documents("train", 128, 0), embedded.tokenizer, 96, 0))
    noisy = {**MASKED, "reader_tokens": 2 * TOKENS, "epsilon": 30.0}
    attack = RewritePosterior(shortlist=16, beam=4)
    views = attacked(attack, noisy, embedded, public, asked)
    own, _ = scores([attack.recover(view, np.random.default_rng(0)) for view in views], asked)
    attack._mode = "read"
    stands, _ = scores([attack.recover(view, np.random.default_rng(0)) for view in views], asked)
    assert own > stands + 0.05


def test_a_masked_text_is_read_at_chance_at_a_small_epsilon(
    llama: Bundle, corpus: tuple[tuple[int, ...], ...], asked: list[Prompt]
) -> None:
    own, others = scores(guessed({**MASKED, "epsilon": 1e-3}, llama, corpus, asked), asked)
    assert own == pytest.approx(others, abs=0.06)


def test_a_text_written_freely_tells_which_opening_it_was_at_a_large_epsilon(
    llama: Bundle, corpus: tuple[tuple[int, ...], ...]
) -> None:
    last = [document[TOKENS - 1] for document in corpus]
    alone = [document[:TOKENS] for document in corpus if last.count(document[TOKENS - 1]) == 1]
    prompts = [Prompt(str(i), "", ids) for i, ids in enumerate(alone[:4])]
    guesses = guessed(AT_ONCE, llama, corpus, prompts, candidates=2 * len(corpus) + 2, shortlist=4)
    assert [guess.ids for guess in guesses] == [prompt.ids for prompt in prompts]


def test_a_text_written_freely_tells_nothing_at_a_small_epsilon(
    llama: Bundle, corpus: tuple[tuple[int, ...], ...], asked: list[Prompt]
) -> None:
    own, others = scores(guessed({"epsilon": 1e-3}, llama, corpus, asked), asked)
    assert own == pytest.approx(others, abs=0.06)


@pytest.mark.parametrize("options", [{}, {"length": 7}, MASKED], ids=["sampling", "fixed length", "masked"])
def test_a_value_of_a_register_is_named_at_a_large_epsilon_alone(
    llama: Bundle, corpus: tuple[tuple[int, ...], ...], options: dict[str, object]
) -> None:
    values = tuple((i, i + 1) for i in range(100, 140))
    ids = corpus[0][:TOKENS]
    prompts = [Prompt(str(i), "", (*ids[:-2], *values[i])) for i in range(6)]
    template = Template((*ids[:-2], -1, -1), TOKENS - 2, TOKENS, values)
    found = {}
    for epsilon in (1e6, 1e-6):
        attack = RewriteRegister()
        wide = WIDE if "mechanism" in options else AT_ONCE
        views = attacked(attack, {**wide, **options, "epsilon": epsilon}, llama, corpus, prompts)
        guesses = [attack.fill(view, template, np.random.default_rng(0)) for view in views]
        assert all(sorted(guess.choices) == list(range(40)) for guess in guesses)
        assert all(guess.ids[:4] == (-1,) * 4 for guess in guesses)
        found[epsilon] = [guess.choices[0] == i for i, guess in enumerate(guesses)]
    assert sum(found[1e6]) >= 5
    assert sum(found[1e-6]) <= 2


def test_a_hidden_length_is_no_view_to_read(llama: Bundle, corpus: tuple[tuple[int, ...], ...]) -> None:
    attack = RewritePosterior(candidates=8)
    (view,) = attacked(attack, {"length": 5}, llama, corpus, [Prompt("p", "", corpus[0][:TOKENS])])
    with pytest.raises(NotApplicableError, match="hides the prompt's length"):
        attack.recover(view, np.random.default_rng(0))


def test_the_budget_is_kept_and_a_guess_follows_its_seed(
    llama: Bundle, corpus: tuple[tuple[int, ...], ...], asked: list[Prompt]
) -> None:
    attack = RewritePosterior(candidates=40, shortlist=8)
    (view,) = attacked(attack, {}, llama, corpus, asked[:1])
    one, other = (attack.recover(view, np.random.default_rng(1)) for _ in range(2))
    assert one == other
    assert one.spent.candidates <= 40
    assert [ranked[0] for ranked in one.ranked] == list(one.ids)
    with pytest.raises(NotApplicableError, match="rewrite parameters"):
        RewritePosterior().fit(replace(attack.public, parameters=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "guess"}, "mode=guess is unknown"),
        ({"beam": 0}, "at least 1"),
        ({"lm_share": 1.5}, r"within \[0, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewritePosterior(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        RewriteRegister(candidates=0)
