"""Where truth and guess meet: the negative control, the token texts, what is averaged."""

import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lived import seen

from attacks.base import Attack, PromptAttack, Template, TemplateAttack
from experiments.trials.guesses import Attempt, scored
from experiments.trials.items import token_texts
from experiments.trials.pursuing import admit
from experiments.trials.pursuit import Findings
from experiments.trials.scoring import score
from experiments.trials.seen import SERVE, TUNE, Seen
from experiments.trials.templates import partner
from smd_research.boundary import AdversaryView, Link
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt, TokenSpan
from smd_research.metrics import Estimate


class Letters:
    """A stand-in for a bundle whose tokens are letters; the first letter of a text loses its leading space."""

    special_ids = frozenset({0})

    def decode(self, ids: Any) -> str:
        return "".join(" " + chr(96 + i) for i in ids if i > 0).lstrip()


BUNDLE = cast(Any, Letters())


def prompt(name: str, ids: tuple[int, ...], source: str = "") -> Prompt:
    return Prompt(name, "", ids, (TokenSpan(1, 3, "name"),), source=source)


def lived(*prompts: Prompt) -> Seen:
    views = [AdversaryView((), frozenset(), len(one.ids), ((1, 2, 3),)) for one in prompts]
    return seen(BUNDLE, prompts, views, weights_mb=Estimate(5.0))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3)), min_size=1, max_size=12))
def test_the_control_of_a_template_is_another_prompt_of_the_same_source_and_length(strata: list[Any]) -> None:
    for position in range(len(strata)):
        other = partner(position, strata)
        if other is None:
            assert strata.count(strata[position]) == 1
        else:
            assert other != position
            assert strata[other] == strata[position]


def test_a_perfect_attack_on_prompts_that_are_alike_leaks_only_what_differs() -> None:
    prompts = [prompt(str(last), (0, 1, 2, last), "letters") for last in range(4, 9)]
    attempts = [Attempt(Guess(one.ids), 0.0) for one in prompts]
    found = {}
    for one in scored(attempts, prompts, BUNDLE):
        for name, value in one.scores.items():
            found.setdefault(name, []).append(value)
    assert np.mean(found["token_accuracy"]) == 1
    assert np.mean(found["control_token_accuracy"]) == pytest.approx(2 / 3)
    assert np.mean(found["excess_token_accuracy"]) == pytest.approx(1 / 3)
    assert np.mean(found["excess_span_exact"]) == 0, "every view gives the same name away"


def test_a_right_guess_scores_and_its_control_does_not() -> None:
    one, two = prompt("one", (0, 1, 2, 3)), prompt("two", (0, 7, 8, 9))
    attempts = [Attempt(Guess(one.ids, spent=Spent(candidates=5)), 0.1), Attempt(Guess(two.ids), 0.3)]
    guessed = Findings(scored(attempts, (one, two), BUNDLE))
    found, items = score(lived(one, two), guessed, Link("wan", round_trip_s=2.0))
    assert found["token_accuracy"].mean == 1.0
    assert found["span_exact"].mean == 1.0
    assert found["control_token_accuracy"].mean == 0.0
    assert found["control_span_exact"].mean == 0.0
    assert found["attack_s"].mean == pytest.approx(0.2)
    assert found["attack_candidates"].mean == 2.5
    assert "certified" not in found, "no guess had a check"
    assert found["modelled_s"].mean == pytest.approx(2.0)
    assert found["perplexity"].mean == pytest.approx(math.e)
    assert found["tpot_ms"].mean == pytest.approx(20.0)
    assert found["weights_mb"].mean == 5.0
    assert [item.prompt_id for item in items] == ["one", "two"]


def test_without_an_attack_there_is_utility_and_cost_only() -> None:
    found, items = score(lived(prompt("one", (1, 2))), Findings(), Link("none"))
    assert "token_accuracy" not in found
    assert "modelled_s" not in found, "no link, no modelled time"
    assert found["kl"].mean == 0.5
    assert list(items[0].guess_tokens) == []


def test_token_texts_keep_the_space_before_a_word_and_mark_abstentions() -> None:
    assert token_texts((1, 2, -1, 3), BUNDLE) == ["a", " b", None, " c"]
    assert token_texts((), BUNDLE) == []


class Hidden(PromptAttack):
    needs = frozenset({Observable.HIDDEN_STATES})

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        return Guess(())


class Fills(TemplateAttack):
    def fill(self, view: AdversaryView, template: Template, rng: np.random.Generator) -> Guess:
        return Guess(())


class Nothing(Attack):
    """Of no kind."""


def test_an_attack_that_needs_what_is_not_shown_is_refused_by_name() -> None:
    with pytest.raises(NotApplicableError, match="needs hidden states, which the defense does not show"):
        admit(Hidden(), SERVE, frozenset({Observable.LOGITS}))
    admit(Hidden(), SERVE, frozenset({Observable.LOGITS, Observable.HIDDEN_STATES}))


def test_an_attack_that_finds_nothing_to_look_for_in_a_life_is_refused_by_name() -> None:
    with pytest.raises(NotApplicableError, match="works on prompts that are served"):
        admit(Fills(), TUNE, frozenset())
    admit(Hidden(), TUNE, frozenset({Observable.HIDDEN_STATES}))
    with pytest.raises(ConfigError, match="Nothing is no kind of attack"):
        admit(Nothing(), SERVE, frozenset())
