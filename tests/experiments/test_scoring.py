"""Where truth and guess meet: the negative control, the token texts, what is averaged."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.trials.attacking import Attempt, check
from experiments.trials.observe import Observation, Served
from experiments.trials.scoring import partner, score, token_texts
from smd_research.boundary import AdversaryView, Ledger, Link
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt, TokenSpan
from smd_research.defenses.base import Generation
from smd_research.defenses.none import NoDefense


class Letters:
    """A stand-in for a bundle whose tokens are letters; the first letter of a text loses its leading space."""

    special_ids = frozenset({0})

    def decode(self, ids: Any) -> str:
        return "".join(" " + chr(96 + i) for i in ids if i > 0).lstrip()


BUNDLE = cast(Any, Letters())


def served(name: str, ids: tuple[int, ...]) -> Served:
    view = AdversaryView((), frozenset(), len(ids), ((1, 2, 3),))
    ledger = Ledger(messages=3, rounds=1, bytes_to_untrusted=4 * len(ids), bytes_to_trusted=12, frame_bytes=60)
    utility = {"kl": 0.5, "greedy_equal": 1.0, "logit_error": 0.1, "nll": 2.0, "nll_tokens": 2.0}
    prompt = Prompt(name, "", ids, (TokenSpan(1, 3, "name"),))
    return Served(prompt, view, utility, ledger, Generation((1, 2, 3), 0.01, 0.05), (1000, 2000))


def observation(*prompts: Served) -> Observation:
    return Observation(prompts, NoDefense().prepare(BUNDLE), 5_000_000, 100.0)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=12))
def test_the_control_takes_another_prompt_of_the_same_length(lengths: list[int]) -> None:
    for position in range(len(lengths)):
        other = partner(position, lengths)
        if other is None:
            assert lengths.count(lengths[position]) == 1
        else:
            assert other != position
            assert lengths[other] == lengths[position]


def test_a_right_guess_scores_and_its_control_does_not() -> None:
    one, two = served("one", (0, 1, 2, 3)), served("two", (0, 7, 8, 9))
    attempts = [Attempt(Guess(one.prompt.ids, spent=Spent(candidates=5)), 0.1), Attempt(Guess(two.prompt.ids), 0.3)]
    found, items = score(BUNDLE, observation(one, two), attempts, Link("wan", round_trip_s=2.0))
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
    found, items = score(BUNDLE, observation(served("one", (1, 2))), None, Link("none"))
    assert "token_accuracy" not in found
    assert "modelled_s" not in found, "no link, no modelled time"
    assert found["kl"].mean == 0.5
    assert list(items[0].guess_tokens) == []


def test_token_texts_keep_the_space_before_a_word_and_mark_abstentions() -> None:
    assert token_texts((1, 2, -1, 3), BUNDLE) == ["a", " b", None, " c"]
    assert token_texts((), BUNDLE) == []


def test_an_attack_that_needs_what_is_not_shown_is_refused_by_name() -> None:
    attack = cast(Any, SimpleNamespace(needs=frozenset({Observable.HIDDEN_STATES})))
    with pytest.raises(NotApplicableError, match="needs hidden states, which the defense does not show"):
        check(attack, frozenset({Observable.LOGITS}))
    check(attack, frozenset({Observable.LOGITS, Observable.HIDDEN_STATES}))
