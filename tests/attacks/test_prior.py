"""What is public alone answers with what does best on public text, whatever that is."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.base import Public
from attacks.baselines import prior as module
from attacks.baselines.prior import ANSWERS, Known, Prior, explains, mode, write
from smd_research.boundary import AdversaryView
from smd_research.data.sources import Synthetic
from smd_research.data.tokenise import prompts
from smd_research.metrics import token_accuracy
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy

LENGTH = 8
Ids = NDArray[np.int64]


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return sources.random("llama")


def view(bundle: Bundle, ids: tuple[int, ...], answer: int = 4) -> AdversaryView:
    return AdversaryView((), frozenset(), len(ids), (plain_greedy(bundle, ids, answer),))


def texts(seed: int, count: int, draw: Any) -> tuple[tuple[int, ...], ...]:
    rng = np.random.default_rng(seed)
    return tuple(tuple(int(token) for token in draw(rng)) for _ in range(count))


def positional(rng: np.random.Generator) -> Ids:
    """Text in which a position tells the token, in two thirds of the texts."""
    own = np.arange(100, 100 + LENGTH)
    return np.where(rng.random(LENGTH) < 2 / 3, own, rng.integers(1000, 4000, LENGTH))


def monotonous(rng: np.random.Generator) -> Ids:
    """Text of one frequent token, at other places in each."""
    return np.where(rng.random(LENGTH) < 0.4, 77, rng.integers(1000, 4000, LENGTH))


def repeated(rng: np.random.Generator) -> Ids:
    """One of forty texts, word for word but for the last word; the answer tells which."""
    which = int(rng.integers(40))
    return np.append(np.random.default_rng(which).integers(5, 4000, LENGTH - 1), rng.integers(5, 4000))


@pytest.mark.parametrize(
    ("draw", "expected", "least"),
    [
        (positional, {"mode"}, 0.4),
        (monotonous, {"constant", "mode"}, 0.3),
        (repeated, {"nearest 1", "nearest 4", "nearest 16"}, 0.02),
    ],
)
def test_the_answer_is_the_one_that_does_best_on_public_text(
    tiny: Bundle, draw: Any, expected: set[str], least: float
) -> None:
    attack = Prior(shortlist=120, trials=16)
    attack.fit(Public(tiny, "none", corpus=texts(0, 120, draw)))
    assert attack._choice(LENGTH, 4) in expected
    secrets = texts(1, 20, draw)
    hits = [token_accuracy(ids, attack.recover(view(tiny, ids), np.random.default_rng(0))) for ids in secrets]
    assert np.mean(hits) > least


def test_it_is_never_tried_on_a_prompt(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        module, "plain_greedy", lambda bundle, ids, count: asked.append(ids) or plain_greedy(bundle, ids, count)
    )
    corpus = texts(0, 40, positional)
    attack = Prior(trials=4)
    attack.fit(Public(tiny, "none", corpus=corpus))
    one, two = (attack.recover(view(tiny, ids), np.random.default_rng(0)) for ids in texts(1, 2, positional))
    assert len(asked) == 4, "one comparison serves all prompts of a length"
    assert set(asked) <= {document[:LENGTH] for document in corpus}
    assert one.spent.candidates == two.spent.candidates == 16


def test_a_length_that_no_public_text_has_gets_the_most_frequent_token(tiny: Bundle) -> None:
    attack = Prior()
    attack.fit(Public(tiny, "none", corpus=((5, 6, 6), (6, 7))))
    assert attack.recover(view(tiny, (1,) * 5), np.random.default_rng(0)).ids == (6,) * 5
    attack.fit(Public(tiny, "none"))
    assert len(attack.recover(view(tiny, (1,) * 5), np.random.default_rng(0)).ids) == 5


def test_every_answer_has_the_prompts_length_and_special_tokens_are_no_constant(tiny: Bundle) -> None:
    openings = np.array([(1, 9, 9, 4), (1, 8, 9, 4), (1, 9, 3, 2)])
    written = write(tiny, openings)
    assert written.shape == (module.SAMPLES, 4)
    known = Known(tiny, openings, written, np.ones(tiny.geometry.vocab), (9, 9), 2)
    assert all(answer(known).shape == (4,) for answer in ANSWERS.values())
    assert ANSWERS["constant"](known).tolist() == [9] * 4
    assert mode(openings).tolist() == [1, 9, 9, 4]
    assert known.nearest.shape == (2, 4)
    assert {tuple(row) for row in known.nearest} == {(1, 9, 9, 4), (1, 8, 9, 4)} or 9 in known.nearest
    assert explains(tiny, openings, ()).tolist() == [0, 0, 0]


@pytest.mark.slow
def test_on_generated_text_it_is_no_worse_than_a_constant() -> None:
    bundle = sources.embedded()
    documents = prompts(Synthetic("mixed").documents("train", 1000, 0), bundle.tokenizer, bundle.geometry.context)
    attack = Prior()
    attack.fit(Public(bundle, "none", corpus=tuple(one.ids for one in documents)))
    hits, constant = [], []
    for one in prompts(Synthetic("mixed").documents("evaluation", 60, 0), bundle.tokenizer, 16):
        guess = attack.recover(view(bundle, one.ids, 8), np.random.default_rng(0))
        hits.append(token_accuracy(one.ids, guess, bundle.special_ids))
        known = attack._known(*attack._of_length(16), ())
        constant.append(token_accuracy(one.ids, ANSWERS["constant"](known).tolist(), bundle.special_ids))
    assert np.mean(hits) > np.mean(constant) - 0.02
    assert np.mean(hits) > 0.04
