"""Normalisers are exact where asked for, bounded elsewhere, and what a bound excludes is what the exact one would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy import embedding_space
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.normalisers import log_sums
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel

PUBLIC = (0, 1, 7)


def channel(epsilon: float, vocab: int = 300, seed: int = 0) -> ExponentialChannel:
    return ExponentialChannel(
        EmbeddingSpace.of(generator(seed, "table").normal(size=(vocab, 16)), PUBLIC, "unit"), epsilon
    )


@pytest.mark.parametrize("scale", [1.0, 40.0, 4000.0])
def test_sums_in_place_are_those_of_a_logsumexp(scale: float) -> None:
    scores = -scale * generator(0, "scores").random((7, 50))
    np.testing.assert_allclose(log_sums(scores.copy()), logsumexp(scores, axis=1), rtol=2e-15, atol=1e-15)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 60), st.integers(5, 80), st.integers(0, 10**6))
def test_a_likelihood_is_at_most_its_bound_and_equals_it_where_settled(epsilon: float, vocab: int, seed: int) -> None:
    here = channel(epsilon, max(vocab, 12), seed)
    seen = generator(seed, "seen").integers(0, here.vocab_size, 5)
    bounded = here.likelihood(seen)
    exact = ExponentialChannel(here.space, epsilon).log_likelihood(seen)
    for position in range(len(seen)):
        assert (bounded.row(position) >= exact[position]).all()
    asked = generator(seed, "asked").integers(0, here.vocab_size, 4)
    bounded.settle(asked)
    assert bounded.settled.sum() == len({*asked.tolist(), *PUBLIC})
    for position in range(len(seen)):
        np.testing.assert_allclose(bounded.row(position)[asked], exact[position][asked], rtol=1e-12)


def test_what_was_settled_for_one_text_stays_settled_for_the_next() -> None:
    here = channel(6.0)
    here.likelihood([20]).settle(np.array([30, 31]))
    assert here.likelihood([21]).settled[[30, 31]].all()


def test_no_row_of_distances_is_longer_than_a_chunk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws, survivals and normalisers of a whole vocabulary go through blocks of rows; blocks change no draw."""
    here, everything = channel(6.0), np.arange(300)
    whole = here.drawn(everything, generator(0, "uniforms").random(300)), here.log_likelihood([9])
    monkeypatch.setattr(embedding_space, "_CHUNK_ENTRIES", 4 * 300)
    rows: list[int] = []
    distances = EmbeddingSpace.distances
    monkeypatch.setattr(EmbeddingSpace, "distances", lambda self, ids: (rows.append(len(ids)), distances(self, ids))[1])
    blocked = channel(6.0)
    np.testing.assert_array_equal(blocked.drawn(everything, generator(0, "uniforms").random(300)), whole[0])
    np.testing.assert_allclose(blocked.log_likelihood([9]), whole[1])
    assert max(rows) == 4
