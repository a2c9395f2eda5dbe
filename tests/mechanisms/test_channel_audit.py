"""The audit of each mechanism says holds where the law holds, misses where it cannot, and refutes flawed forms."""

import math

import numpy as np
import pytest
from test_token_mechanisms import OWN, SETS, channel, space

from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import NotApplicableError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.channel_audit import audit_claims
from smd_research.mechanisms.privacy.channel_estimate import estimate_channel
from smd_research.mechanisms.privacy.channels import TokenOptions, token_channel
from smd_research.mechanisms.privacy.customised_sets import CustomisedChannel, SharedSetsChannel
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.mahalanobis import MahalanobisChannel
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.sensitive_words import SensitiveWordsChannel
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, TokenChannel
from smd_research.mechanisms.privacy.unknown_tokens import UniformUnknown


def audited(here: TokenChannel, draws: int = 8_000) -> tuple[ClaimAudit, ...]:
    return audit_claims(here, generator(0, "audit"), draws=draws)


@pytest.mark.parametrize("mechanism", ["santext", "tem"])
def test_metric_mechanisms_hold_exactly(mechanism: str) -> None:
    (found,) = audited(channel(mechanism))
    assert found.holds
    assert found.verdict == "holds"
    assert 3.0 <= found.measured <= found.claimed == 6.0
    assert found.n == 57 * 56 // 2
    assert found.differing == 0


def test_sensitive_words_hold_among_themselves_and_kept_words_are_told() -> None:
    among, against, everything = audited(channel("santext_plus"))
    assert among.holds
    assert among.measured <= 6.0
    assert against.holds
    assert 0 <= against.measured <= against.claimed == pytest.approx(-math.log(0.3))
    assert not everything.holds
    assert everything.measured == math.inf
    assert everything.verdict == "misses: nothing bounds it"


def test_sets_hold_within_and_miss_across() -> None:
    within, across = audited(channel("custext"))
    assert within.holds
    assert 0 < within.measured <= within.claimed == 6.0
    assert not across.holds
    assert (across.measured, across.differing) == (math.inf, 1.0)
    assert within.n + across.n == 57 * 56 // 2
    (own,) = audited(channel("custext", OWN))
    assert not own.holds
    assert own.measured == math.inf
    assert own.differing is not None
    assert own.differing > 0.9


def test_the_exact_audit_within_sets_is_that_of_all_pairs() -> None:
    here = channel("custext")
    assert isinstance(here, CustomisedChannel)
    rows = here.log_prob(here.space.private_ids)[:, here.space.private_ids]
    worst = 0.0
    for first in rows:
        same = (np.isfinite(rows) == np.isfinite(first)).all(axis=1)
        inside = np.isfinite(first)
        worst = max(worst, float(np.abs(rows[same][:, inside] - first[inside]).max()))
    assert audited(here)[0].measured == pytest.approx(worst)


def test_one_set_for_all_holds_everywhere() -> None:
    within, across = audited(channel("custext", TokenOptions(set_size=57)))
    assert within.holds
    assert across.holds
    assert across.n == 0


@pytest.mark.parametrize("mechanism", ["dchi", "mahalanobis"])
def test_noise_holds(mechanism: str) -> None:
    noise, game = audited(channel(mechanism))
    assert noise.holds
    assert noise.measured == pytest.approx(6.0, rel=0.05)
    assert game.holds
    assert game.n == 8_000


@pytest.mark.parametrize("epsilon", [2.5, 4.0])
def test_random_lists_miss_and_by_how_much(epsilon: float) -> None:
    here = token_channel("rantext", space(300, 64), epsilon)
    (found,) = audited(here, 20_000)
    assert not found.holds
    assert found.verdict.startswith(("misses by ", "refuted by "))
    assert found.measured > epsilon
    assert found.differing == pytest.approx(1.0, abs=0.01)


def test_a_game_says_what_it_could_have_shown() -> None:
    """A thousand draws of two tokens that are always told apart show 4.8 nats at most: no claim of more is tested."""
    apart = EmbeddingSpace.of(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), (2,))
    _, small = audited(NoisyNearestChannel(apart, 2.0), 2_000)
    _, large = audited(NoisyNearestChannel(apart, 100.0), 2_000)
    assert small.tested
    assert (large.claimed, large.holds) == (200.0, True)
    assert large.measured == pytest.approx(large.ceiling, rel=0.01)
    assert large.verdict == "not tested: such a game shows 4.79 at most"


class _WithoutHalf(ExponentialChannel):
    """Leaves out the factor one half."""

    def _scores(self, ids):  # type: ignore[no-untyped-def]
        return 2 * super()._scores(ids)


class _WithoutHalfOfWords(SensitiveWordsChannel):
    def _scores(self, ids):  # type: ignore[no-untyped-def]
        return 2 * super()._scores(ids)


class _SimilarityBeyondOne(SharedSetsChannel):
    """Weighs similarity as if it reached two."""

    def law(self, ids):  # type: ignore[no-untyped-def]
        return SharedSetsChannel(self.space, 2 * self.epsilon, self.size, self.sets).law(ids)


class _RadiusOfEachCoordinate(NoisyNearestChannel):
    """A gamma radius for every coordinate."""

    def standard_noise(self, count, width, rng):  # type: ignore[no-untyped-def]
        return rng.gamma(width, 1.0, size=(count, width)) * rng.uniform(-1, 1, size=(count, width))


class _HalfTheNoise(MahalanobisChannel):
    def standard_noise(self, count, width, rng):  # type: ignore[no-untyped-def]
        return super().standard_noise(count, width, rng) / 2


class _ScaledForAnother(NoisyNearestChannel):
    """Noise of the right law, at an epsilon of its own."""

    def noise(self, count, rng):  # type: ignore[no-untyped-def]
        return super().noise(count, rng) / 2


def _flawed() -> list[TokenChannel]:
    words, sets = channel("santext_plus"), channel("custext", SETS, 3.0)
    assert isinstance(words, SensitiveWordsChannel)
    assert isinstance(sets, SharedSetsChannel)
    return [
        _WithoutHalf(space(), 6.0),
        _WithoutHalfOfWords(space(), 6.0, words.sensitive_ids, 0.3),
        _SimilarityBeyondOne(space(), 3.0, sets.size, sets.sets),
        _RadiusOfEachCoordinate(space(), 6.0),
        _HalfTheNoise(space(), 6.0),
        _ScaledForAnother(space(), 6.0),
    ]


@pytest.mark.parametrize("mechanism", ["dchi", "mahalanobis"])
def test_what_is_audited_is_what_is_drawn(mechanism: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A game on outputs alone would not see a tenth of the noise: nearly every token survives either way."""
    here = channel(mechanism, epsilon=45.0)
    assert isinstance(here, NoisyNearestChannel)
    right = type(here).noise
    monkeypatch.setattr(NoisyNearestChannel, "noise", lambda self, count, rng: right(self, count, rng) / 10)
    drawn = here.sample(np.repeat(here.space.private_ids, 20), generator(0, "drawn"))
    assert (drawn == np.repeat(here.space.private_ids, 20)).mean() > 0.99
    assert not audited(here)[0].holds


@pytest.mark.parametrize("flawed", _flawed(), ids=lambda one: type(one).__name__.strip("_"))
def test_flawed_forms_are_refuted(flawed: TokenChannel) -> None:
    found = audited(flawed)[0]
    assert not found.holds
    assert found.measured > found.claimed or isinstance(flawed, _RadiusOfEachCoordinate)


def test_a_channel_with_a_policy_is_audited_inside_and_an_estimate_is_not() -> None:
    inner = EmbeddingSpace.of(space().rows, (0, 1, 7, 20))
    known = ExponentialChannel(inner, 6.0)
    around = UniformUnknown(inner, 6.0, inner=known, unknown_ids=np.array([20]))
    assert audited(around) == audited(known)
    with pytest.raises(NotApplicableError, match="no audit is known of EstimatedChannel"):
        audited(estimate_channel(channel("dchi"), 2, generator(0, "estimate")))
