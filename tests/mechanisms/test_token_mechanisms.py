"""Every token mechanism draws what it says, states what it promises, and is placed by survival where that follows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy import random_lists
from smd_research.mechanisms.privacy.audit import audit_log_ratio, sampler_p_value
from smd_research.mechanisms.privacy.channels import (
    TOKEN_MECHANISMS,
    TokenOptions,
    counts_frequencies,
    token_channel,
    token_epsilons,
)
from smd_research.mechanisms.privacy.customised_sets import OwnListsChannel, SharedSetsChannel, partition
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Scale
from smd_research.mechanisms.privacy.mahalanobis import MahalanobisChannel, regularised_covariance
from smd_research.mechanisms.privacy.random_lists import RandomListChannel, released_divisor
from smd_research.mechanisms.privacy.sensitive_words import SensitiveWordsChannel, rarest
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, FiniteChannel, TokenChannel
from smd_research.mechanisms.privacy.truncated_exponential import TruncatedExponentialChannel

PUBLIC = (0, 1, 7)
OWN = TokenOptions(set_size=5, mapping="own")
SETS = TokenOptions(set_size=5)
FINITE = [("santext", SETS), ("santext_plus", SETS), ("custext", SETS), ("custext", OWN), ("tem", SETS)]
EVERY = [*FINITE, ("dchi", SETS), ("mahalanobis", SETS), ("rantext", SETS)]


def space(vocab: int = 60, width: int = 8, scale: Scale = "unit", seed: int = 0) -> EmbeddingSpace:
    return EmbeddingSpace.of(generator(seed, "table").normal(size=(vocab, width)), PUBLIC, scale)


def zipf(vocab: int = 60) -> np.ndarray:
    return np.round(1000 / np.arange(1, vocab + 1))


def channel(mechanism: str, options: TokenOptions = SETS, epsilon: float = 6.0, scale: Scale = "unit") -> TokenChannel:
    return token_channel(mechanism, space(scale=scale), epsilon, options, zipf())


def finite(mechanism: str, options: TokenOptions = SETS, epsilon: float = 6.0) -> FiniteChannel:
    found = channel(mechanism, options, epsilon)
    assert isinstance(found, FiniteChannel)
    return found


@pytest.mark.parametrize(("mechanism", "options"), FINITE)
def test_the_sampler_draws_from_the_stated_probabilities(mechanism: str, options: TokenOptions) -> None:
    here = finite(mechanism, options)
    for token in (2, 20, 55):
        assert sampler_p_value(here, token, 20_000, generator(0, "sampler", token)) > 1e-3


@pytest.mark.parametrize(("mechanism", "options"), FINITE)
def test_rows_are_probabilities_and_columns_are_theirs(mechanism: str, options: TokenOptions) -> None:
    here = finite(mechanism, options)
    everything = np.arange(here.vocab_size)
    rows = here.log_prob(everything)
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(here.log_likelihood(everything)), np.exp(rows).T, atol=1e-12)
    np.testing.assert_array_equal(np.isfinite(here.log_likelihood(everything)), np.isfinite(rows).T)
    np.testing.assert_allclose(here.survival(everything), np.exp(np.diag(rows)))
    likelihood = here.likelihood([5, 40])
    likelihood.settle(everything)
    np.testing.assert_allclose(np.exp(likelihood.row(1)), np.exp(rows[:, 40]), atol=1e-12)


@pytest.mark.parametrize(("mechanism", "options"), EVERY)
def test_public_tokens_pass_and_no_other_token_becomes_public(mechanism: str, options: TokenOptions) -> None:
    here = channel(mechanism, options)
    ids = np.tile(np.arange(60), 20)
    sanitised = here.sample(ids, generator(0, "public"))
    public = np.isin(ids, PUBLIC)
    assert (sanitised[public] == ids[public]).all()
    assert not np.isin(sanitised[~public], PUBLIC).any()
    assert 0 < (sanitised[~public] != ids[~public]).mean() < 1


@pytest.mark.parametrize(("mechanism", "options"), EVERY)
def test_the_guarantee_says_whether_anything_bounds_a_replacement(mechanism: str, options: TokenOptions) -> None:
    promised = channel(mechanism, options).guarantee()
    assert promised.epsilon == 6.0
    assert promised.composition
    assert promised.support
    assert promised.source
    bounded = mechanism in ("santext", "tem", "dchi", "mahalanobis")
    assert math.isfinite(promised.of_text(3)) == bounded
    assert (promised.unit_epsilon is None) != bounded
    assert (promised.notion == "heuristic") == (mechanism == "rantext" or options.mapping == "own")


def test_what_is_not_protected_is_said() -> None:
    assert "kept words are unprotected" in channel("santext_plus").guarantee().composition
    assert "infinite across sets" in channel("custext").guarantee().composition


PLACED = [(m, o) for m, o in EVERY if m != "rantext"]


@pytest.mark.parametrize(("mechanism", "options"), PLACED)
def test_the_chosen_epsilons_give_the_wanted_shares_when_sampled(mechanism: str, options: TokenOptions) -> None:
    here = channel(mechanism, options)
    weights = zipf()
    weights[list(PUBLIC)] = 0
    shares = (0.6, 0.8)
    rng = generator(2, "tokens")
    ids = rng.choice(60, size=6000, p=weights / weights.sum())
    epsilons = token_epsilons(here, zipf(), shares)
    assert epsilons[0] < epsilons[1]
    for share, epsilon in zip(shares, epsilons, strict=True):
        survived = (channel(mechanism, options, epsilon).sample(ids, rng) == ids).mean()
        assert survived == pytest.approx(share, abs=0.03)


def test_shares_out_of_reach_are_named() -> None:
    with pytest.raises(ConfigError, match=r"rantext needs defense\.epsilon"):
        token_epsilons(channel("rantext"), zipf(), (0.5,))
    with pytest.raises(ConfigError, match=r"santext_plus cannot let a share of 0\.05 survive: .* between 0\.\d+ and"):
        token_epsilons(channel("santext_plus"), zipf(), (0.05,))
    with pytest.raises(ConfigError, match=r"no epsilon lets a share of 0\.1 survive"):
        token_epsilons(channel("custext"), zipf(), (0.1,))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_tem_keeps_the_bound_on_the_full_matrix(epsilon: float, scale: Scale) -> None:
    here = TruncatedExponentialChannel(space(scale=scale), epsilon)
    assert audit_log_ratio(here).holds
    assert here.guarantee().unit_epsilon == epsilon * min(here.gamma, here.space.diameter_bound)


def test_tem_is_the_gumbel_form_of_its_paper() -> None:
    """Gumbel noise on tokens within gamma and on one item for all others, among which it draws uniformly."""
    here = TruncatedExponentialChannel(space(scale="raw"), 3.2, beta=0.05)
    token, draws, rng = 20, 40_000, generator(0, "gumbel")
    distances = here.space.distances([token])[0]
    near = distances <= here.gamma
    assert 2 <= near.sum() < len(near) - 2
    rest = -here.gamma + 2 / here.epsilon * math.log((~near).sum())
    scores = np.append(-distances[near], rest) + rng.gumbel(scale=2 / here.epsilon, size=(draws, int(near.sum()) + 1))
    chosen = scores.argmax(axis=1)
    places = np.where(
        chosen < near.sum(), np.flatnonzero(near)[chosen % near.sum()], rng.choice(np.flatnonzero(~near), draws)
    )
    drawn = np.bincount(places, minlength=len(near)) / draws
    law = np.exp(here.log_prob([token])[0][here.space.private_ids])
    assert np.abs(drawn - law).max() < 4 * math.sqrt(law.max() / draws)


def test_tem_cuts_off_where_the_formula_says() -> None:
    here = TruncatedExponentialChannel(EmbeddingSpace.of(np.eye(40)), 2.0)
    assert here.gamma == pytest.approx(2 / 2.0 * math.log(0.999 * 39 / 0.001))


@settings(max_examples=15, deadline=None)
@given(st.integers(6, 40), st.floats(0.1, 20), st.floats(0.1, 0.9), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_sensitive_words_keep_the_bound_among_themselves(
    vocab: int, epsilon: float, share: float, resampled: float, seed: int
) -> None:
    rng = generator(seed, "any")
    here = EmbeddingSpace.of(rng.normal(size=(vocab, 4)), (0,))
    counts = rng.integers(0, 5, vocab)
    plus = SensitiveWordsChannel(here, epsilon, rarest(here, counts, share), resampled)
    assert counts[plus.sensitive_ids].max() <= counts[plus.is_kept].min(initial=5)
    inside = plus.log_prob(plus.sensitive_ids)[:, plus.sensitive_ids]
    alone = ExponentialChannel(plus.outputs, epsilon).log_prob(plus.sensitive_ids)[:, plus.sensitive_ids]
    np.testing.assert_allclose(inside, alone, atol=1e-9)


def test_one_set_for_all_its_members_and_nobody_hides_among_fewer() -> None:
    here = space()
    members = partition(here, zipf(), 5)
    for column, row in enumerate(members):
        inside = row[row >= 0]
        assert column in inside
        assert 5 <= len(inside) < 10
        for other in inside:
            np.testing.assert_array_equal(members[other], row)
    first = here.private_rows[0]
    order = np.argsort(np.linalg.norm(here.private_rows - first, axis=1), kind="stable")
    assert set(members[0]) - {-1} == set(order[:5])


def test_own_lists_are_the_nearest_tokens() -> None:
    here = space()
    brute = np.argsort(np.linalg.norm(here.private_rows[:, None] - here.private_rows, axis=2), axis=1)[:, :5]
    np.testing.assert_array_equal(
        np.sort(OwnListsChannel(here, 1.0, 5).members(here.private_ids)), np.sort(brute, axis=1)
    )


def test_a_set_is_left_for_no_epsilon() -> None:
    here = channel("custext", epsilon=0.01)
    assert isinstance(here, SharedSetsChannel)
    ids = np.repeat(here.space.private_ids, 50)
    sanitised = here.sample(ids, generator(0, "sets"))
    for token, output in zip(ids, sanitised, strict=True):
        assert here.space.column[output] in here.sets[here.space.column[token]]


def test_mahalanobis_noise_is_radial_where_rows_are_whitened_and_is_d_chi_at_lambda_zero() -> None:
    here = MahalanobisChannel(space(scale="raw"), 1.0, 0.8)
    noise = here.standard_noise(20_000, 8, generator(0, "noise"))
    expected = regularised_covariance(here.space, 0.8) * (8 + 1)  # E[radius^2] / d = d + 1
    np.testing.assert_allclose(np.cov(noise, rowvar=False), expected, atol=0.6)
    assert np.linalg.norm(here.whitened(noise), axis=1).mean() == pytest.approx(8, rel=0.02)
    trace = np.trace(regularised_covariance(here.space, 1.0))
    assert trace == pytest.approx(8)
    plain = MahalanobisChannel(space(), 9.0, 0.0)
    ids = np.arange(60)
    np.testing.assert_array_equal(
        plain.sample(ids, generator(0, "same")), channel("dchi", epsilon=9.0).sample(ids, generator(0, "same"))
    )


def test_rantext_probabilities_are_close_to_its_draws() -> None:
    here = RandomListChannel(space(), 3.0)
    rows = np.exp(here.log_prob([20])[0])
    drawn = np.bincount(here.sample(np.full(20_000, 20), generator(0, "draws")), minlength=60) / 20_000
    assert np.abs(rows - drawn).sum() / 2 < 0.03
    assert here.survival([20])[0] == pytest.approx(drawn[20], abs=0.02)
    everything = np.arange(60)
    np.testing.assert_allclose(np.exp(here.log_likelihood(everything)), np.exp(here.log_prob(everything)).T, atol=1e-12)


def test_rantexts_released_calibration_jumps_at_two_and_then_stays() -> None:
    assert released_divisor(1.99) == 1.99
    assert released_divisor(3.0) == pytest.approx(9.36, abs=0.01)
    assert released_divisor(20.0) == pytest.approx(released_divisor(3.0), rel=0.01)
    with pytest.raises(ConfigError, match="no value at epsilon=2"):
        RandomListChannel(space(), 2.0)


def test_a_vocabulary_too_large_for_random_lists_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_lists, "_LARGEST", 10)
    with pytest.raises(NotApplicableError, match="too many to average"):
        RandomListChannel(space(), 3.0).log_likelihood([5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensitive_share": 0.0}, r"defense\.sensitive_share=0 is out of range: it is above 0"),
        ({"resampled": 1.5}, r"defense\.resampled=1\.5 is out of range"),
        ({"set_size": 1}, r"defense\.set_size=1 is out of range: it is 2 or more"),
        ({"mapping": "greedy"}, r"defense\.mapping=greedy is unknown"),
        ({"lam": 1.0}, r"defense\.lam=1 is out of range"),
        ({"beta": 0.5}, r"defense\.beta=0\.5 is out of range"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenOptions(**options)


def test_what_does_not_fit_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set_size=90 is out of range: a set has 2 to 57"):
        channel("custext", TokenOptions(set_size=90))
    with pytest.raises(ConfigError, match="rows that differ"):
        MahalanobisChannel(EmbeddingSpace.of(np.ones((5, 3))), 1.0).sample([1], generator(0, "x"))
    with pytest.raises(ConfigError, match="mechanism=snow is unknown"):
        token_channel("snow", space(), 1.0)


def test_only_what_goes_by_frequencies_publishes_them() -> None:
    assert {m for m in TOKEN_MECHANISMS if counts_frequencies(m)} == {"santext_plus", "custext"}
    assert not counts_frequencies("custext", OWN)
