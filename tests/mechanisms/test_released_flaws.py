"""Flaws of released code for private text, each of which a mechanism here would fail with."""

import inspect
import math
import multiprocessing

import numpy as np
import pytest
from test_token_mechanisms import EVERY, FINITE, SETS, channel, finite, space

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.defenses.base import PublicText
from smd_research.defenses.dp_text import DpText
from smd_research.mechanisms.privacy.audit import audit_log_ratio
from smd_research.mechanisms.privacy.channels import TokenOptions, token_channel
from smd_research.mechanisms.privacy.embedding_space import Ids
from smd_research.mechanisms.privacy.sensitive_words import SensitiveWordsChannel
from smd_research.models import sources


def _draw(task: tuple[str, TokenOptions, int]) -> Ids:
    mechanism, options, prompt = task
    return channel(mechanism, options, 2.5).sample(np.full(40, 20), generator(0, "dp_text", prompt))


def test_flaw_1_forked_workers_draw_the_same_noise() -> None:
    tasks = [(mechanism, options, prompt) for mechanism, options in EVERY for prompt in range(3)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = pool.map(_draw, tasks, chunksize=1)
    for start in range(0, len(tasks), 3):
        assert len({tuple(ids) for ids in drawn[start : start + 3]}) == 3, tasks[start]
    for task, ids in reversed(list(zip(tasks, drawn, strict=True))):
        np.testing.assert_array_equal(ids, _draw(task))


@pytest.mark.parametrize("mechanism", ["santext", "tem"])
def test_flaw_2_outputs_depend_on_the_input(mechanism: str) -> None:
    here = finite(mechanism, epsilon=30.0)
    assert (np.isfinite(here.log_prob(here.space.private_ids)) == here.space.is_private).all()


def test_flaw_2_sensitive_words_and_sets_share_their_outputs() -> None:
    plus = finite("santext_plus", epsilon=30.0)
    assert isinstance(plus, SensitiveWordsChannel)
    assert (np.isfinite(plus.log_prob(plus.sensitive_ids)) == plus.outputs.is_private).all()
    sets = np.isfinite(finite("custext").log_prob(space().private_ids))[:, space().private_ids]
    assert (sets == sets.T).all()
    assert (sets[sets.argmax(axis=1)] == sets).all()


@pytest.mark.parametrize(("mechanism", "options"), EVERY)
def test_flaw_2_a_token_outside_the_vocabulary_passes(mechanism: str, options: TokenOptions) -> None:
    with pytest.raises(ConfigError, match="token ids must lie"):
        channel(mechanism, options).sample([3, 60], generator(0, "x"))


@pytest.mark.parametrize(("mechanism", "options"), EVERY)
def test_flaw_2_the_length_is_kept(mechanism: str, options: TokenOptions) -> None:
    for length in (0, 1, 9):
        assert len(channel(mechanism, options).sample(np.full(length, 20), generator(0, "n"))) == length


def test_flaw_3_sets_are_made_from_private_text() -> None:
    """Nothing that a channel is made from can hold a prompt, and other public text makes another channel."""
    assert list(inspect.signature(DpText.prepare).parameters) == ["self", "bundle", "public_text", "seed", "folder"]
    bundle = sources.random("llama")
    common, other = PublicText([(20, 20, 21)]), PublicText([(4000, 4000, 4001)])
    for mechanism in ("santext_plus", "custext"):
        defense = DpText(mechanism, epsilon=3.0, set_size=5, sensitive_share=0.9)
        first, again, different = (defense.prepare(bundle, text) for text in (common, common, other))
        laws = [one.channel.log_prob([20, 4000]) for one in (first, again, different)]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(laws[0], laws[1])
        assert (laws[0] != laws[2]).any()


def test_flaw_3_words_that_only_private_text_has_are_in_the_vocabulary() -> None:
    plus = token_channel("santext_plus", space(), 3.0, SETS, np.zeros(60))
    assert isinstance(plus, SensitiveWordsChannel)
    assert len(plus.sensitive_ids) == round(0.9 * 57)


@pytest.mark.parametrize(("mechanism", "options"), FINITE)
def test_flaw_8_probabilities_underflow(mechanism: str, options: TokenOptions) -> None:
    """A float32 softmax turns to exact zeros where log space does not."""
    here = finite(mechanism, options, 2000.0)
    rows = here.log_prob(here.space.private_ids)
    reference = finite(mechanism, options, 1.0).log_prob(here.space.private_ids)
    np.testing.assert_array_equal(np.isfinite(rows), np.isfinite(reference))
    assert mechanism == "tem" or rows[np.isfinite(rows)].min() < -900
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-9)
    assert here.sample(here.space.private_ids, generator(0, "x")).shape == here.space.private_ids.shape


def test_flaw_8_the_bound_holds_at_any_epsilon() -> None:
    for epsilon in (1e-6, 300.0, 2000.0):
        assert audit_log_ratio(finite("tem", epsilon=epsilon)).worst_excess < 1e-4


@pytest.mark.parametrize("mechanism", ["dchi", "mahalanobis"])
def test_flaw_11_search_is_approximate_or_of_another_metric(mechanism: str) -> None:
    here = channel(mechanism, epsilon=5.0, scale="raw")
    ids = np.repeat(here.space.private_ids, 20)
    noise = here.standard_noise(len(ids), 8, generator(0, "brute")) / 5.0  # type: ignore[attr-defined]
    points = here.space.rows[ids] + noise
    brute = here.space.private_ids[np.linalg.norm(points[:, None] - here.space.private_rows, axis=2).argmin(axis=1)]
    np.testing.assert_array_equal(here.sample(ids, generator(0, "brute")), brute)


def test_flaw_11_distances_are_not_squared() -> None:
    here = space(scale="raw")
    true = np.linalg.norm(here.rows[20] - here.private_rows, axis=1)
    rows = token_channel("tem", here, 0.5).log_prob([20])[0][here.private_ids]  # type: ignore[attr-defined]
    np.testing.assert_allclose(rows - rows.max(), -0.25 * true, atol=1e-9)


@pytest.mark.parametrize(("mechanism", "options"), EVERY)
def test_flaw_13_epsilon_of_a_token_is_read_as_that_of_the_text(mechanism: str, options: TokenOptions) -> None:
    promised = channel(mechanism, options).guarantee()
    assert "token" in promised.unit
    one, many = promised.of_text(1), promised.of_text(10)
    assert many == 10 * one
    assert promised.composition in str(promised)
    assert "a prompt of n tokens" in str(promised) or math.isinf(one)


@pytest.mark.parametrize(("mechanism", "options"), EVERY)
def test_flaw_14_some_text_is_left_as_it_is(mechanism: str, options: TokenOptions) -> None:
    """Whatever the frequency of a token, tokens change: no word but the public ones is spared."""
    here = channel(mechanism, options, 2.5)
    ids = np.repeat(here.space.private_ids, 200)
    changed = (here.sample(ids, generator(0, "spared")) != ids).reshape(-1, 200).any(axis=1)
    assert changed.all()
