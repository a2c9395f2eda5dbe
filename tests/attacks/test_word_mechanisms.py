"""The attacker of sanitised text knows each word mechanism exactly, and the better the attack the more it recovers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from test_token_attacks import Corpus, accuracy, guesses, observe, others

from attacks.base import Public
from attacks.prompts.bayes_token import BayesToken
from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.dp_text import DpText
from smd_research.mechanisms.privacy.token_channel import FiniteChannel
from smd_research.models import Bundle, sources

MECHANISMS: Mapping[str, dict[str, Any]] = {
    "santext": {"mechanism": "santext", "survival": 0.5},
    "santext_plus": {"mechanism": "santext_plus", "epsilon": 11.0},
    "custext": {"mechanism": "custext", "survival": 0.3},
    "custext own": {"mechanism": "custext", "mapping": "own", "survival": 0.3},
    "tem": {"mechanism": "tem", "survival": 0.5},
    "rantext": {"mechanism": "rantext", "epsilon": 3.0},
}
QUICK = ("custext",)
SLOW = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MECHANISMS]


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def secrets(embedded: Bundle) -> list[Prompt]:
    return tokenised(generate("mixed", "validation", 9, 0), embedded.tokenizer, 20, 0)


@pytest.fixture(scope="module")
def corpus(embedded: Bundle) -> Corpus:
    return tuple(prompt.ids for prompt in tokenised(generate("mixed", "train", 200, 1), embedded.tokenizer, 96, 0))


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_channel_is_rebuilt_exactly_from_what_is_published(embedded: Bundle, corpus: Corpus, name: str) -> None:
    prepared = DpText(**MECHANISMS[name]).prepare(embedded, PublicText(corpus))
    attack = BayesToken("nearest")
    attack.fit(Public(embedded, "dp_text", prepared.parameters, corpus))
    theirs, ours = prepared.channel, attack._channel
    assert isinstance(ours, FiniteChannel)
    assert isinstance(theirs, FiniteChannel)
    inputs = theirs.space.private_ids[::397]
    np.testing.assert_array_equal(ours.log_prob(inputs), theirs.log_prob(inputs))


@pytest.mark.parametrize("name", SLOW)
def test_the_better_the_attack_the_more_it_recovers(
    embedded: Bundle, secrets: list[Prompt], corpus: Corpus, name: str
) -> None:
    public, views = observe(DpText(**MECHANISMS[name]), embedded, secrets, corpus)
    found = {mode: guesses(BayesToken(mode), public, views) for mode in ("nearest", "bayes", "beam")}
    scores = {mode: accuracy(made, secrets) for mode, made in found.items()}
    assert scores["beam"] >= scores["bayes"] >= scores["nearest"] - 0.02, scores
    assert scores["beam"] > scores["nearest"], scores
    assert accuracy(found["beam"], others(secrets)) < 0.35 < scores["beam"]


def test_the_set_of_a_token_is_told_for_certain(embedded: Bundle, secrets: list[Prompt], corpus: Corpus) -> None:
    """Whatever epsilon: each guess of an exact attack is a member of the right set, among twenty of thousands."""
    defense = DpText("custext", epsilon=0.01)
    public, views = observe(defense, embedded, secrets, corpus)
    channel = defense.prepare(embedded, PublicText(corpus)).channel
    assert isinstance(channel, FiniteChannel)
    for guess, prompt in zip(guesses(BayesToken("bayes"), public, views), secrets, strict=True):
        assert np.isfinite(channel.log_prob(prompt.ids)[np.arange(len(prompt.ids)), list(guess.ids)]).all()


def test_nothing_is_left_to_see_under_a_tiny_epsilon(embedded: Bundle, secrets: list[Prompt], corpus: Corpus) -> None:
    for options in ({"mechanism": "tem"}, {"mechanism": "santext_plus", "sensitive_share": 1.0}):
        public, views = observe(DpText(epsilon=0.01, **options), embedded, secrets, corpus)  # type: ignore[arg-type]
        found = guesses(BayesToken("bayes"), public, views)
        assert accuracy(found, secrets) == pytest.approx(accuracy(found, others(secrets)), abs=0.1)


def test_a_mechanism_that_is_not_placed_by_survival_asks_for_epsilon() -> None:
    with pytest.raises(ConfigError, match=r"defense\.mechanism=rantext needs defense\.epsilon=E"):
        DpText("rantext")
    with pytest.raises(ConfigError, match="no value at epsilon=2"):
        DpText("rantext", epsilon=2.0)
