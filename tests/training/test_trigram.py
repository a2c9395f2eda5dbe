"""The trigram model is a probability distribution, and a good one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.training.trigram import Trigram

VOCABULARY = 12


def corpus(seed: int, documents: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    # A second-order process: the next token is mostly the sum of the last two.
    texts = []
    for _ in range(documents):
        ids = [int(i) for i in rng.integers(0, 8, 2)]
        for _ in range(30):
            ids.append((ids[-1] + ids[-2]) % 8 if rng.random() < 0.9 else int(rng.integers(0, 8)))
        texts.append(ids)
    return texts


@pytest.fixture(scope="module")
def trigram() -> Trigram:
    return Trigram(corpus(0), VOCABULARY)


@settings(max_examples=60, deadline=None)
@given(history=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=3))
def test_sums_to_one_for_seen_and_unseen_histories(trigram: Trigram, history: list[int]) -> None:
    probabilities = [np.exp(trigram.log_probabilities([*history, token])[-1]) for token in range(VOCABULARY)]
    assert min(probabilities) > 0
    assert sum(probabilities) == pytest.approx(1, abs=1e-9)


def test_learns_a_second_order_process(trigram: Trigram) -> None:
    held_out = corpus(1, 10)
    nats = -np.concatenate([trigram.log_probabilities(ids)[1:] for ids in held_out]).mean()
    entropy = -(0.9 + 0.1 / 8) * np.log(0.9 + 0.1 / 8) - 7 * (0.1 / 8) * np.log(0.1 / 8)
    assert entropy - 0.05 < nats < entropy + 0.15
    assert nats < np.log(8) / 2


def test_repeated_text_is_all_but_certain() -> None:
    model = Trigram([[1, 2, 3, 4, 5]] * 50, VOCABULARY)
    assert model.log_probabilities([1, 2, 3, 4, 5]).min() > np.log(0.8)
