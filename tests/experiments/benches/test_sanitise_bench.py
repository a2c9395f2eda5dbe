"""The bench of sanitising measures the same work on both sides."""

import numpy as np
import pytest

from experiments.benches import sanitise
from experiments.benches.case import Settings
from experiments.benches.sanitise import at_once, by_matrix, by_row, cases, made_text
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel


def test_a_made_text_has_few_frequent_and_many_rare_tokens() -> None:
    space = EmbeddingSpace.of(generator(0, "table").normal(size=(300, 8)), (0,))
    text = made_text(space, 0, 5_000)
    counts = np.sort(np.bincount(text, minlength=300))[::-1]
    assert counts[0] > 20 * counts[50]
    assert 0 not in text
    np.testing.assert_array_equal(text, made_text(space, 0, 5_000))


def test_all_at_once_is_faster_than_a_loop_and_holds_no_matrix() -> None:
    space = EmbeddingSpace.of(generator(0, "table").normal(size=(2000, 8)), (0,))
    channel, text = ExponentialChannel(space, 12.0), made_text(space, 0, 100_000)
    measured = at_once(channel, text, 0)
    matrix = np.exp(channel.log_prob(space.private_ids)[:, space.private_ids])
    assert measured.value > 5 * by_row(channel, text[:100], 0)
    assert measured.value > 2 * by_matrix(matrix, space, text[:500], 0)
    assert 0 < measured.extra["peak_mb"] < 200


def test_three_cases_with_what_they_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitise, "SENTENCES", 10)
    monkeypatch.setattr(sanitise, "installed", lambda: False)
    monkeypatch.setattr(sanitise, "LARGE", (5000, 8))
    monkeypatch.setattr(sanitise, "made_text", lambda space, seed: made_text(space, seed, 130))
    found = list(cases(Settings()))
    assert [case.labels["model"] for case in found] == ["embedded", "embedded", "random_table"]
    assert found[2].baseline is None
    assert {case.unit for case in found} == {"tokens/s"}
    assert found[2].labels["tokens"] == 130
