"""Epsilons are placed by the share of tokens that survive, on public frequencies."""

import numpy as np
import pytest

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.survival import (
    SURVIVAL_SHARES,
    dchi_epsilons,
    epsilon_for_survival,
    representatives,
    santext_epsilons,
    token_frequencies,
)
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, TokenChannel


def space(vocab: int = 400, width: int = 16) -> EmbeddingSpace:
    return EmbeddingSpace.of(generator(2, "table").normal(size=(vocab, width)), (0, 1))


def zipf(vocab: int = 400) -> np.ndarray:
    return np.round(10_000 / np.arange(1, vocab + 1))


@pytest.mark.parametrize("kind", [ExponentialChannel, NoisyNearestChannel])
def test_the_chosen_epsilons_give_the_wanted_shares_when_sampled(kind: type[TokenChannel]) -> None:
    here, weights = space(), zipf()
    choose = {ExponentialChannel: santext_epsilons, NoisyNearestChannel: dchi_epsilons}[kind]
    epsilons = choose(here, weights)
    assert list(epsilons) == sorted(epsilons)
    rng = generator(2, "tokens")
    private = weights.copy()
    private[[0, 1]] = 0
    ids = rng.choice(len(weights), size=4000, p=private / private.sum())
    for share, epsilon in zip(SURVIVAL_SHARES, epsilons, strict=True):
        survived = (kind(here, epsilon).sample(ids, rng) == ids).mean()
        assert survived == pytest.approx(share, abs=0.04)


def test_the_exponential_epsilons_are_exact() -> None:
    here = space()
    ids, weights = representatives(here, zipf(), 10**6)
    (epsilon,) = epsilon_for_survival(here.distances(ids), [0.5], weights)
    assert weights @ ExponentialChannel(here, epsilon).survival(ids) == pytest.approx(0.5, abs=1e-6)


def test_a_systematic_sample_stands_for_the_vocabulary() -> None:
    here = space()
    ids, weights = representatives(here, zipf(), 100)
    assert len(ids) <= 100
    assert weights.sum() == pytest.approx(1.0)
    (full,) = santext_epsilons(here, zipf(), [0.5], limit=10**6)
    (sampled,) = santext_epsilons(here, zipf(), [0.5], limit=100)
    assert sampled == pytest.approx(full, rel=0.02)


def test_frequencies_count_a_corpus() -> None:
    np.testing.assert_array_equal(token_frequencies([[1, 2, 2], [2]], 4), [0, 1, 3, 0])


def test_unreachable_shares_are_refused() -> None:
    here = space()
    with pytest.raises(ConfigError, match="between 0 and 1"):
        santext_epsilons(here, zipf(), [1.0])
    with pytest.raises(ConfigError, match="no epsilon"):
        santext_epsilons(here, zipf(), [1e-4])
    twins = EmbeddingSpace.of(np.repeat(generator(2, "twins").normal(size=(50, 8)), 4, axis=0))
    with pytest.raises(ConfigError, match="no epsilon"):
        santext_epsilons(twins, np.ones(200), [0.5])
    with pytest.raises(ConfigError, match="no epsilon"):
        dchi_epsilons(twins, np.ones(200), [0.5])
    with pytest.raises(ConfigError, match="weight"):
        representatives(here, np.zeros(400), 10)
