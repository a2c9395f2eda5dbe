"""Token channels keep their promise on the full probability matrix, and draw what they say."""

import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.audit import audit_log_ratio, sampler_p_value
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Ids, Scale
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, TokenChannel
from smd_research.models.sources import EMBEDDED_DIR

PUBLIC = (0, 1, 7)


def space(vocab: int = 60, width: int = 8, scale: Scale = "unit", seed: int = 0) -> EmbeddingSpace:
    return EmbeddingSpace.of(generator(seed, "table").normal(size=(vocab, width)), PUBLIC, scale)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 40.0])
@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_the_exponential_channel_keeps_the_log_ratio_bound_on_the_full_matrix(epsilon: float, scale: Scale) -> None:
    audit = audit_log_ratio(ExponentialChannel(space(300, 16, scale), epsilon))
    assert audit.holds, audit
    assert audit.pairs == 297 * 296 // 2
    assert 0.5 <= audit.tightest <= 1 + 1e-6


class _WithoutHalf(ExponentialChannel):
    """Leaves out the factor one half."""

    def _scores(self, ids):  # type: ignore[no-untyped-def]
        return 2 * super()._scores(ids)


class _OwnSupport(ExponentialChannel):
    """Gives every token its own neighbours as outputs (B.13, flaw 2)."""

    def _scores(self, ids):  # type: ignore[no-untyped-def]
        scores = super()._scores(ids)
        return np.where(scores < np.median(scores, axis=1, keepdims=True), -np.inf, scores)


class _SquaredDistance(ExponentialChannel):
    """Uses squared distances, as an index that skips the root returns them (flaw 11)."""

    def _scores(self, ids):  # type: ignore[no-untyped-def]
        return -0.5 * self.epsilon * self.space.distances(ids) ** 2


@pytest.mark.parametrize("flawed", [_WithoutHalf, _OwnSupport, _SquaredDistance])
def test_the_exact_audit_refutes_flawed_channels(flawed: type[ExponentialChannel]) -> None:
    assert audit_log_ratio(ExponentialChannel(space(), 3.0)).holds
    assert not audit_log_ratio(flawed(space(), 3.0)).holds


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 40), st.integers(1, 12), st.floats(0.01, 50), st.integers(0, 10**6))
def test_any_table_and_epsilon_keep_the_bound(vocab: int, width: int, epsilon: float, seed: int) -> None:
    table = generator(seed, "any").normal(size=(vocab, width))
    assert audit_log_ratio(ExponentialChannel(EmbeddingSpace.of(table, (0,)), epsilon)).holds


@pytest.mark.slow
def test_the_shipped_models_embedding_table_keeps_the_bound_on_its_full_matrix() -> None:
    table = load_file(EMBEDDED_DIR / "model.safetensors")["model.embed_tokens.weight"].astype(np.float64)
    special = AutoTokenizer.from_pretrained(EMBEDDED_DIR).all_special_ids
    audit = audit_log_ratio(ExponentialChannel(EmbeddingSpace.of(table, tuple(special)), 12.0))
    assert audit.holds, audit
    private = len(table) - len(special)
    assert audit.pairs == private * (private - 1) // 2


def test_the_sampler_draws_from_the_stated_probabilities() -> None:
    channel = ExponentialChannel(space(), 6.0)
    assert sampler_p_value(channel, 20, 20_000, generator(0, "sampler")) > 1e-3

    class Mismatched(ExponentialChannel):
        def sample(self, ids, rng):  # type: ignore[no-untyped-def]
            return ExponentialChannel(self.space, 5.0).sample(ids, rng)

    assert sampler_p_value(Mismatched(space(), 6.0), 20, 20_000, generator(0, "sampler")) < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 70), st.floats(0.1, 60), st.integers(0, 10**6))
def test_all_draws_at_once_are_those_of_a_search_for_each(vocab: int, epsilon: float, seed: int) -> None:
    rng = generator(seed, "draws")
    channel = ExponentialChannel(EmbeddingSpace.of(rng.normal(size=(vocab, 4)), (0,)), epsilon)
    ids, uniforms = rng.integers(1, vocab, 40), np.append(rng.random(38), [0.0, np.nextafter(1.0, 0.0)])
    scores = -0.5 * epsilon * channel.space.distances(np.unique(ids))
    rows = np.cumsum(np.exp(scores - scores.max(axis=1, keepdims=True)), axis=1)[np.unique(ids, return_inverse=True)[1]]
    found = [np.searchsorted(row, u * row[-1], side="right") for row, u in zip(rows, uniforms, strict=True)]
    expected = channel.space.private_ids[np.minimum(found, vocab - 2)]
    np.testing.assert_array_equal(channel.drawn(ids, uniforms), expected)


def test_likelihood_columns_are_the_columns_of_the_probability_matrix() -> None:
    channel = ExponentialChannel(space(), 4.0)
    everything = np.arange(channel.vocab_size)
    np.testing.assert_allclose(channel.log_likelihood(everything), channel.log_prob(everything).T, atol=1e-9)
    np.testing.assert_allclose(channel.survival(everything), np.exp(np.diag(channel.log_prob(everything))))


@pytest.mark.parametrize("kind", [ExponentialChannel, NoisyNearestChannel])
def test_public_tokens_pass_and_no_other_token_becomes_public(kind: type[TokenChannel]) -> None:
    channel = kind(space(), 0.05)
    ids = np.tile(np.arange(60), 30)
    sanitised = channel.sample(ids, generator(0, "public"))
    public = np.isin(ids, PUBLIC)
    assert (sanitised[public] == ids[public]).all()
    assert not np.isin(sanitised[~public], PUBLIC).any()
    assert (sanitised[~public] != ids[~public]).mean() > 0.9
    assert len(sanitised) == len(ids)


def test_every_input_has_the_same_support() -> None:
    channel = ExponentialChannel(space(), 30.0)
    possible = np.isfinite(channel.log_prob(channel.space.private_ids))
    assert (possible == channel.space.is_private).all()


def test_large_epsilons_do_not_underflow() -> None:
    """Flaw 8: a float32 softmax turns to exact zeros; log space does not."""
    channel = ExponentialChannel(space(300, 16, "raw"), 2000.0)
    rows = channel.log_prob(channel.space.private_ids[:50])[:, channel.space.private_ids]
    assert np.isfinite(rows).all()
    assert rows.min() < -1000
    assert audit_log_ratio(channel).worst_excess < 1e-4


@pytest.mark.parametrize("kind", [ExponentialChannel, NoisyNearestChannel])
def test_a_token_outside_the_vocabulary_is_refused(kind: type[TokenChannel]) -> None:
    with pytest.raises(ConfigError, match="token ids must lie"):
        kind(space(), 1.0).sample([3, 60], generator(0, "x"))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_an_epsilon_that_promises_nothing_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="must be positive and finite"):
        ExponentialChannel(space(), epsilon)


def _draw(prompt: int) -> Ids:
    ids = np.full(40, 20)
    return ExponentialChannel(space(), 2.0).sample(ids, generator(0, "dp_text", prompt))


def test_workers_draw_independently_and_in_any_order_alike() -> None:
    """Flaw 1: forked workers that share a generator's state draw the same noise."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = pool.map(_draw, range(6), chunksize=1)
    assert len({tuple(ids) for ids in drawn}) == 6
    for prompt in reversed(range(6)):
        np.testing.assert_array_equal(drawn[prompt], _draw(prompt))


def test_the_guarantee_states_token_and_prompt_cost() -> None:
    """Flaw 13: an epsilon for each token that is read as one for the document."""
    guarantee = ExponentialChannel(space(), 5.0).guarantee()
    assert guarantee.notion == "metric-DP"
    assert guarantee.unit.startswith("token")
    assert "a prompt of n tokens" in str(guarantee)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_distances_and_search_equal_brute_force(scale: Scale) -> None:
    """Flaw 11: true Euclidean distances and exact search on a thousand rows."""
    here = space(1000, 24, scale, seed=3)
    brute = np.linalg.norm(here.rows[:50, None] - here.private_rows[None], axis=2)
    np.testing.assert_allclose(here.distances(range(50)), brute, atol=1e-7)
    points = generator(3, "points").normal(size=(200, 24))
    expected = here.private_ids[np.linalg.norm(points[:, None] - here.private_rows[None], axis=2).argmin(axis=1)]
    np.testing.assert_array_equal(here.nearest(points), expected)


def test_the_diameter_bound_covers_every_pair() -> None:
    for scale in ("unit", "raw"):
        here = space(scale=scale)  # type: ignore[arg-type]
        assert here.distances(here.private_ids).max() <= here.diameter_bound
    assert space().diameter_bound <= 2.0


def test_bad_tables_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown embedding scale"):
        EmbeddingSpace.of(np.eye(4), scale="cosine")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="finite matrix"):
        EmbeddingSpace.of(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(ConfigError, match="two private"):
        EmbeddingSpace.of(np.eye(3), (0, 1))
