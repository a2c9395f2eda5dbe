"""d_chi noise follows its radial law, flawed samplers are refuted, and the attacker's estimate is close."""

import numpy as np
import pytest

from smd_research.core.errors import NotApplicableError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy import channel_estimate
from smd_research.mechanisms.privacy.audit import audit_radial_noise, audit_token_pair, closest_pair, pair_lower_bound
from smd_research.mechanisms.privacy.channel_estimate import estimate_channel
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.mahalanobis import MahalanobisChannel
from smd_research.mechanisms.privacy.noise import radial_noise
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel


def space(vocab: int = 60, width: int = 8) -> EmbeddingSpace:
    return EmbeddingSpace.of(generator(1, "table").normal(size=(vocab, width)), (0,))


@pytest.mark.parametrize("width", [2, 16, 256])
def test_the_noise_has_a_gamma_radius_and_no_preferred_direction(width: int) -> None:
    noise = radial_noise(4000, width, 7.0, generator(0, "noise", width))
    audit = audit_radial_noise(noise, 7.0)
    assert not audit.refuted(), audit
    assert np.linalg.norm(noise, axis=1).mean() == pytest.approx(width / 7.0, rel=0.05)


def test_a_radius_for_each_coordinate_is_refuted() -> None:
    """Flaw 4: gamma times uniform drawn for every coordinate; norms are sqrt(n/3) too large, directions favour axes."""
    rng = generator(0, "flawed")
    noise = rng.gamma(64, 1 / 7.0, size=(4000, 64)) * rng.uniform(-1, 1, size=(4000, 64))
    audit = audit_radial_noise(noise, 7.0)
    assert audit.refuted()
    assert audit.coordinate < 1e-6
    assert np.linalg.norm(noise, axis=1).mean() / (64 / 7.0) == pytest.approx(np.sqrt(64 / 3), rel=0.05)


def test_anisotropic_and_shifted_noise_are_refuted() -> None:
    noise = radial_noise(4000, 16, 7.0, generator(0, "stretch"))
    stretched = noise * np.where(np.arange(16) == 0, 1.3, 1.0)
    assert audit_radial_noise(stretched, 7.0).second_moment < 1e-6
    assert audit_radial_noise(noise + 0.2, 7.0).mean_direction < 1e-6


@pytest.mark.parametrize(("actual", "refuted"), [(1.0, False), (2.5, True)])
def test_monte_carlo_refutes_noise_that_is_too_small(actual: float, refuted: bool) -> None:
    """On the vectors, where the promise is tight: claim epsilon 1, draw at the actual epsilon."""
    rng = generator(0, "vectors", refuted)
    apart = np.array([1.5, 0.0, 0.0])

    def scores(centre: np.ndarray) -> np.ndarray:
        points = centre + radial_noise(60_000, 3, actual, rng)
        gap: np.ndarray = np.linalg.norm(points - apart, axis=1) - np.linalg.norm(points, axis=1)
        return gap

    bound = pair_lower_bound(scores(np.zeros(3)), scores(apart), claimed=1.5)
    assert bound.refuted is refuted
    assert bound.epsilon_lower > 1.0


class _TwiceTheEpsilon(NoisyNearestChannel):
    def sample(self, ids, rng):  # type: ignore[no-untyped-def]
        return NoisyNearestChannel(self.space, 4 * self.epsilon).sample(ids, rng)


def test_monte_carlo_judges_the_token_channel_from_its_outputs_alone() -> None:
    here = space(30, 2)
    pair = closest_pair(here)
    assert not audit_token_pair(NoisyNearestChannel(here, 2.0), pair, 20_000, generator(0, "honest")).refuted
    far = (int(here.private_ids[0]), int(here.private_ids[np.argmax(here.distances([here.private_ids[0]])[0])]))
    assert not audit_token_pair(NoisyNearestChannel(here, 2.0), far, 20_000, generator(0, "honest")).refuted
    assert audit_token_pair(_TwiceTheEpsilon(here, 2.0), far, 20_000, generator(0, "flawed")).refuted


def test_what_is_allowed_on_a_pair_is_measured_in_the_mechanisms_own_metric() -> None:
    here = MahalanobisChannel(space(30, 2), 2.0, 0.9)
    first, second = closest_pair(here.metric)
    allowed = 2.0 * float(np.linalg.norm(here.metric.rows[first] - here.metric.rows[second]))
    assert audit_token_pair(here, (first, second), 200, generator(0, "pair")).claimed == pytest.approx(allowed)


def test_survival_from_critical_epsilons_matches_sampling() -> None:
    channel = NoisyNearestChannel(space(), 10.0)
    tokens = np.arange(1, 60)
    ids = np.repeat(tokens, 200)
    sampled = (channel.sample(ids, generator(0, "survival")) == ids).reshape(59, 200).mean()
    assert 0.1 < sampled < 0.9
    assert channel.survival(tokens).mean() == pytest.approx(sampled, abs=0.02)
    assert channel.survival([0]) == 1.0


def test_the_estimated_channel_approaches_the_sampled_frequencies() -> None:
    channel = NoisyNearestChannel(space(20, 4), 8.0)
    estimate = estimate_channel(channel, 3000, generator(0, "estimate"))
    rows = np.exp(estimate.log_prob([5])[0])
    drawn = np.bincount(channel.sample(np.full(20_000, 5), generator(0, "fresh")), minlength=20) / 20_000
    assert np.abs(rows - drawn).max() < 0.03
    np.testing.assert_allclose(np.exp(estimate.log_prob(channel.space.private_ids)).sum(axis=1), 1.0, atol=1e-5)
    everything = np.arange(20)
    np.testing.assert_array_equal(estimate.log_likelihood(everything), estimate.log_prob(everything).T)
    assert np.isfinite(estimate.log_prob(channel.space.private_ids)[:, channel.space.private_ids]).all()
    assert estimate.guarantee().notion == "none"


@pytest.mark.parametrize("draws", [8, 400])
def test_the_error_that_an_estimate_states_is_its_own(draws: int) -> None:
    channel = NoisyNearestChannel(space(400, 4), 12.0)
    estimate = estimate_channel(channel, draws, generator(0, "estimate", draws))
    ids = channel.space.private_ids
    runs = channel.sample(np.repeat(ids, 1000), generator(0, "truth")).reshape(-1, 1000)
    passing = (runs == ids[:, None]).mean(axis=1)
    true = np.sqrt(np.mean((estimate.survival(ids) - passing) ** 2))
    assert estimate.error == pytest.approx(true, rel=0.3)


def test_tokens_that_pass_as_no_law_of_distances_says_are_counted_by_themselves() -> None:
    rng = generator(0, "cells")
    law, true = np.full(500, 0.5), rng.choice([0.1, 0.9], 500)
    outputs = np.where(rng.random((500, 16)) < true[:, None], np.arange(500)[:, None], 500)
    weights = np.ones(500)
    assert np.abs(channel_estimate._passing(law, outputs, weights) - true).mean() < 0.1
    right = np.where(rng.random((500, 16)) < 0.5, np.arange(500)[:, None], 500)
    assert np.abs(channel_estimate._passing(law, right, weights) - law).mean() < 0.02


def test_the_error_is_that_of_tokens_as_often_as_they_occur() -> None:
    passing = np.array([1.0, 0.5])
    fresh = np.array([[0] * 8, [0] * 8])  # the first token always passes, the second never does
    for weights, error in (([1.0, 0.0], 0.0), ([0.0, 1.0], 0.5), ([1.0, 1.0], np.sqrt(0.125))):
        assert channel_estimate._error(passing, fresh, np.array(weights)) == pytest.approx(error)


def test_more_draws_than_fit_at_once_are_run_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_estimate, "_RUNS", 64)
    sizes: list[int] = []
    channel = NoisyNearestChannel(space(20, 4), 8.0)
    drawn = NoisyNearestChannel.standard_noise
    monkeypatch.setattr(
        NoisyNearestChannel, "standard_noise", lambda self, n, w, rng: sizes.append(n) or drawn(self, n, w, rng)
    )
    estimate_channel(channel, 32, generator(0, "x"))
    assert max(sizes) <= 64
    assert sum(sizes) == 2 * 32 * len(channel.space.private_ids)


def test_a_vocabulary_too_large_to_estimate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_estimate, "_LARGEST", 10)
    with pytest.raises(NotApplicableError, match="no closed form"):
        estimate_channel(NoisyNearestChannel(space(), 1.0), 2, generator(0, "x"))
