"""Fresh noise for every occurrence: equal tokens differ under one key, by the word mechanism's law and promise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from smd_research.boundary import Boundary
from smd_research.boundary.messages import ClassifyRows, PromptIds, Tune, TuningRows
from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.data.texts import Texts
from smd_research.defenses.none import NoDefense
from smd_research.defenses.shaking import Shaking
from smd_research.defenses.shaking.fresh import FreshNoise
from smd_research.defenses.tunable import ClientCode, TunablePrepared
from smd_research.defenses.tuning import TuningDeployment
from smd_research.mechanisms.privacy.channels import bundle_space
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel
from smd_research.mechanisms.shaking import KeyStream
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_logits
from smd_research.training.methods import Full, Machine

SECRET = bytes(range(16))
PUBLIC = (0, 3)


def noise(epsilon: float, secret: bytes = SECRET) -> FreshNoise:
    """On a table of 12 rows."""
    space = EmbeddingSpace.of(generator(0, "table").normal(size=(12, 3)), PUBLIC)
    return FreshNoise(ExponentialChannel(space, epsilon), KeyStream(secret, ("fresh",)))


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


def horizontal(**options: Any) -> Shaking:
    return Shaking(inflate=0, tilt=0, gaussian=0, awareness_steps=0, function_steps=0, **options)


@pytest.mark.parametrize("token", [5, 11])
def test_occurrences_follow_the_law_of_the_channel(token: int) -> None:
    fresh = noise(3.0)
    drawn = np.array(fresh.replaced([[token] * 500] * 8, first=4))
    law = np.exp(fresh.channel.log_prob([token])[0])
    counts, private = np.bincount(drawn.ravel(), minlength=12), law > 0
    assert not counts[~private].any()
    assert chisquare(counts[private], law[private] * drawn.size).pvalue > 1e-3
    other = np.exp(noise(4.0).channel.log_prob([token])[0])
    assert chisquare(counts[private], other[private] * drawn.size).pvalue < 1e-6, "the test tells epsilons apart"
    assert len({tuple(row) for row in drawn}) == 8, "texts of other numbers draw anew"


def test_a_text_draws_the_same_under_its_number_whatever_is_sent_with_it() -> None:
    fresh, texts = noise(1.0), [[5] * 40, [6, 7] * 20, [], [5] * 40]
    together = fresh.replaced(texts, first=10)
    assert together == [fresh.replaced([text], first=10 + n)[0] for n, text in enumerate(texts)]
    assert together[0] != together[3]
    assert noise(1.0, bytes(16)).replaced(texts, first=10) != together
    assert fresh.replaced([], first=0) == []


def test_another_text_under_the_same_number_and_key_shares_no_randomness() -> None:
    """As when a key file serves twice: draws of two texts that differ in one place are independent in all."""
    fresh = noise(0.01)
    one, two = (np.array(fresh.replaced([[5] * 400 + [last]])[0][:400]) for last in (5, 6))
    assert (one == two).mean() < 0.2  # one in ten by chance


@pytest.mark.parametrize("epsilon", [0.01, 2.0])
def test_special_ids_stay_and_nothing_becomes_special(epsilon: float) -> None:
    ids = np.tile(np.arange(12), 50)
    drawn = np.array(noise(epsilon).replaced([ids.tolist()])[0])
    special = np.isin(ids, PUBLIC)
    assert (drawn[special] == ids[special]).all()
    assert not np.isin(drawn[~special], PUBLIC).any()
    assert (drawn[~special] != ids[~special]).mean() > 0.3


def _ids(bundle: Bundle, rows: int, seed: int = 1) -> tuple[int, ...]:
    drawn = torch.randint(5, bundle.geometry.vocab, (rows,), generator=torch.Generator().manual_seed(seed)).tolist()
    return (0, *drawn[1:])


def test_a_huge_epsilon_changes_nothing_and_a_small_one_shows_its_price(llama: Bundle) -> None:
    ids, following = _ids(llama, 30), _ids(llama, 9, seed=2)
    expected = plain_logits(llama, ids, following)
    errors = []
    for epsilon in (1e6, 0.1):
        with horizontal(fresh_epsilon=epsilon).prepare(llama).deploy(Boundary()) as deployment:
            got = deployment.score(ids, following)
        errors.append(float((got - expected).abs().max() / expected.abs().max()))
    assert errors[0] < 1e-6
    assert errors[1] > 1e-2


def test_equal_prompts_are_no_longer_equal_ciphertext_and_only_ids_cross(llama: Bundle) -> None:
    ids, boundary = (0, *(9,) * 30), Boundary()
    prepared = horizontal(fresh_epsilon=0.1).prepare(llama)
    with prepared.deploy(boundary) as deployment:
        sent = []
        for _ in range(2):
            deployment.generate(Prompt("p", "", ids), 2)
            sent += [message.ids.tolist() for message in boundary.view(deployment.shows).of(PromptIds)]
    assert prepared.published()["fresh_epsilon"] == 0.1
    assert sent[0][0] == sent[1][0] == 0
    assert len(set(sent[0])) > 20
    assert sent[0] != sent[1]


def test_the_promise_is_the_word_mechanisms_and_none_without_it(llama: Bundle) -> None:
    promise = horizontal(fresh_epsilon=5.0).prepare(llama).guarantee
    assert promise is not None
    words = ExponentialChannel(bundle_space(llama), 5.0).guarantee()
    assert (str(promise), promise.metric, promise.epsilon) == (str(words), words.metric, 5.0)
    assert horizontal().prepare(llama).guarantee is None


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_an_epsilon_that_cannot_be_is_refused_in_one_line(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"defense\.fresh_epsilon=.* above 0 and finite, or null") as caught:
        Shaking(fresh_epsilon=epsilon)
    assert "\n" not in str(caught.value)


class Shifted(ClientCode):
    """Replaces every token by the next one, where noise would draw."""

    def replaced(self, texts: Sequence[Sequence[int]], first: int = 0) -> Sequence[Sequence[int]]:
        return [[token + 1 for token in text] for text in texts]


def shifted(bundle: Bundle) -> TunablePrepared:
    return replace(NoDefense().prepare(bundle), code=Shifted())


def tuning(head: Literal["linear", "words"]) -> Full:
    """One step that changes nothing."""
    return Full(
        steps=1,
        batch=1,
        learning_rate=1e-12,
        warmup=0.0,
        weight_decay=0.0,
        clip=1.0,
        pooling="last",
        head=head,
        freeze_table=True,
        checks=1,
        patience=None,
        precision="32-true",
    )


def test_a_next_token_is_scored_against_what_the_user_wrote(llama: Bundle, tmp_path: Path) -> None:
    text = _ids(llama, 12)
    parties = shifted(llama), Boundary(threads=1), 0, tuning("linear"), Machine(), tmp_path
    with TuningDeployment(*parties) as deployment:
        deployment.upload(Texts((text,)))
        deployment.upload(Texts((text,)), held_out=True, first=1)
        deployment.tune((), 0)
        ((nll, _),) = deployment.next_token(Texts((text,)), first=2)
    read = tuple(token + 1 for token in text)
    logits = llama.model(input_ids=torch.tensor([read[:-1]])).logits[0].detach()
    right = torch.nn.functional.cross_entropy(logits, torch.tensor(text[1:]), reduction="sum")
    assert nll == pytest.approx(float(right), rel=1e-4)


def test_texts_are_replaced_and_class_words_which_are_public_never(llama: Bundle, tmp_path: Path) -> None:
    text, boundary = _ids(llama, 12), Boundary(record=True, threads=1)
    with TuningDeployment(shifted(llama), boundary, 2, tuning("words"), Machine(), tmp_path) as deployment:
        deployment.upload(Texts((text, text), (0, 1)))
        deployment.upload(Texts((text,), (0,)), held_out=True, first=2)
        deployment.tune((20, 30), 0)
        deployment.classify(Texts((text,)), first=3)
        view = boundary.view(NoDefense().tuning_shows)
    assert view.of(Tune)[0].words.tolist() == [20, 30]
    assert view.of(TuningRows)[0].ids.tolist() == [token + 1 for token in text] * 2
    assert view.of(ClassifyRows)[0].ids.tolist() == [token + 1 for token in text]
