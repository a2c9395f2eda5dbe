"""Given vectors stand for a model's table; what does not match is named, and tokens without one follow a policy."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from smd_research.core.errors import ConfigError, RefusedError
from smd_research.core.seeds import generator
from smd_research.defenses.dp_text import DpText
from smd_research.mechanisms.privacy.audit import audit_log_ratio
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, FiniteChannel
from smd_research.mechanisms.privacy.unknown_tokens import UniformUnknown
from smd_research.mechanisms.privacy.word_vectors import read_vectors, token_vectors
from smd_research.models import Bundle, sources

WORDS = ["the", "and", "house", "dog", "water", "day", "qzxv"]


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


def written(path: Path, words: list[str] = WORDS, width: int = 5, head: str = "") -> Path:
    rows = generator(0, "vectors").normal(size=(len(words), width))
    lines = [f"{word} {' '.join(f'{x:.6f}' for x in row)}" for word, row in zip(words, rows, strict=True)]
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def one_token(bundle: Bundle, word: str) -> set[int]:
    found = (bundle.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}"))
    return {ids[0] for ids in found if len(ids) == 1}


def test_words_and_numbers_are_read(tmp_path: Path) -> None:
    words, vectors = read_vectors(written(tmp_path / "v.txt"))
    assert words == WORDS
    assert vectors.shape == (7, 5)
    again, same = read_vectors(written(tmp_path / "head.txt", head="7 5\n"))
    assert again == WORDS
    np.testing.assert_array_equal(same, vectors)
    packed = tmp_path / "v.txt.gz"
    packed.write_bytes(gzip.compress((tmp_path / "v.txt").read_bytes()))
    assert read_vectors(packed)[0] == WORDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no word vectors in it"),
        ("a 1 2\nb 1\n", "line 2: 2 finite numbers, as on the first after the word, not 1"),
        ("a 1 2\nb 1 x\n", "line 2: after the word stand numbers"),
        ("a 1 nan\n", "line 1: finite numbers after the word"),
        ("a\nb\n", "line 1: finite numbers after the word, not 0"),
    ],
)
def test_a_file_that_is_no_vectors_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_vectors(path)


def test_a_word_that_is_one_token_gives_it_its_vector(embedded: Bundle, tmp_path: Path) -> None:
    path = written(tmp_path / "v.txt")
    words, vectors = read_vectors(path)
    found = token_vectors(path, embedded.tokenizer, embedded.geometry.vocab)
    expected = {token: row for word, row in zip(words, vectors, strict=True) for token in one_token(embedded, word)}
    assert set(found.known_ids) == set(expected)
    for token, row in expected.items():
        np.testing.assert_array_equal(found.rows[token], row)
    assert not found.rows[np.setdiff1d(np.arange(len(found.rows)), found.known_ids)].any()
    assert repr(found) == f"TokenVectors({len(expected)} of {embedded.geometry.vocab} tokens)"


def test_vocabulary_and_vectors_that_do_not_match_are_one_line(embedded: Bundle, tmp_path: Path) -> None:
    path = written(tmp_path / "v.txt", ["qzxv", "xqzv", "the"][:2])
    with pytest.raises(ConfigError, match="vocabulary and vectors do not match: 0 of its 2 words are one token"):
        DpText(epsilon=3.0, vectors_path=str(path)).prepare(embedded)
    with pytest.raises(ConfigError, match=r"does not exist; set defense\.vectors_path"):
        DpText(epsilon=3.0, vectors_path=str(tmp_path / "none.txt")).prepare(embedded)


def _ids(bundle: Bundle) -> tuple[int, int]:
    """A token with a vector, and one without."""
    (known, *_), (unknown, *_) = (sorted(one_token(bundle, word)) for word in ("house", "time"))
    return known, unknown


def test_unknown_tokens_become_any_private_token(embedded: Bundle, tmp_path: Path) -> None:
    path = str(written(tmp_path / "v.txt"))
    channel = DpText(epsilon=3.0, vectors_path=path).channel(embedded)
    assert isinstance(channel, UniformUnknown)
    known, unknown = _ids(embedded)
    private = channel.space.private_ids
    rows = channel.log_prob([known, unknown, 0])
    np.testing.assert_array_equal(np.isfinite(rows[0]), np.isfinite(rows[1]))  # one support for every input
    np.testing.assert_allclose(np.exp(rows[1][private]), 1 / len(private))
    assert rows[2][0] == 0.0
    np.testing.assert_allclose(channel.log_likelihood(private)[:, [known, unknown, 0]].T, rows[:, private], atol=1e-12)
    drawn = channel.sample(np.full(4000, unknown), generator(0, "unknown"))
    counts = np.bincount(drawn, minlength=channel.vocab_size)
    assert set(np.flatnonzero(counts)) == set(private)
    assert counts[private].max() / counts[private].min() < 1.6
    assert channel.survival([known, unknown, 0]).tolist()[1:] == [0.0, 1.0]
    assert "without a vector become any private token" in channel.guarantee().assumptions
    worst = np.abs(rows[0][private] - rows[1][private]).max()
    assert channel.guarantee().unit_epsilon is not None
    assert worst <= channel.guarantee().of_text(1)


def test_unknown_tokens_pass_where_they_are_declared_public(embedded: Bundle, tmp_path: Path) -> None:
    path = str(written(tmp_path / "v.txt"))
    channel = DpText(epsilon=3.0, vectors_path=path, unknown="public").channel(embedded)
    known, unknown = _ids(embedded)
    drawn = channel.sample([unknown] * 50 + [known] * 50, generator(0, "public"))
    assert set(drawn[:50]) == {unknown}
    assert set(drawn[50:]) <= set(channel.space.private_ids)
    assert isinstance(channel, ExponentialChannel)
    assert audit_log_ratio(channel).holds


def test_the_promise_counts_the_tokens_that_pass_for_want_of_a_vector(embedded: Bundle, tmp_path: Path) -> None:
    path = str(written(tmp_path / "v.txt"))
    passing, drawn = (
        DpText(epsilon=3.0, vectors_path=path, unknown=policy).prepare(embedded) for policy in ("public", "uniform")
    )
    assert passing.guarantee is not None
    assert drawn.guarantee is not None
    private = len(passing.channel.space.private_ids)
    missing = len(DpText(epsilon=3.0).channel(embedded).space.private_ids) - private
    assert missing > 1000 > private
    assert f"{missing} of {embedded.geometry.vocab} tokens have no vector and pass" in passing.guarantee.assumptions
    assert " pass: nothing" not in drawn.guarantee.assumptions


@pytest.mark.parametrize("mechanism", ["santext", "dchi", "custext"])
def test_a_text_with_unknown_tokens_is_refused(embedded: Bundle, tmp_path: Path, mechanism: str) -> None:
    path = str(written(tmp_path / "v.txt"))
    channel = DpText(mechanism, epsilon=3.0, vectors_path=path, unknown="refuse", set_size=2).channel(embedded)  # type: ignore[arg-type]
    known, unknown = _ids(embedded)
    assert set(channel.sample([0, known, known], generator(0, "x"))[1:]) <= set(channel.space.private_ids)
    with pytest.raises(RefusedError, match=r"1 of 3 tokens have no vector: .*defense\.unknown=uniform"):
        channel.sample([known, unknown, known], generator(0, "x"))


def test_policies_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"defense\.unknown=drop is unknown: use one of public, uniform, refuse"):
        DpText(epsilon=1.0, unknown="drop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"with dchi and mahalanobis use defense\.unknown=refuse or public"):
        DpText("dchi", epsilon=1.0, vectors_path="v.txt")


def test_real_word_vectors_keep_the_bound(embedded: Bundle, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "glove-twitter-25d"
    words = gzip.decompress((folder / "words.txt.gz").read_bytes()).decode().split()
    vectors = np.load(folder / "vectors.npz")["vectors"]
    path = tmp_path / "glove.txt"
    rows = zip(words, vectors[:3000], strict=False)
    path.write_text("\n".join(f"{word} {' '.join(map(str, row))}" for word, row in rows), encoding="utf-8")
    defense = DpText(survival=0.5, space="raw", vectors_path=str(path))
    channel = defense.channel(embedded)
    assert isinstance(channel, UniformUnknown)
    inner = channel.inner
    assert isinstance(inner, FiniteChannel)
    assert len(inner.space.private_ids) > 500
    assert audit_log_ratio(inner, ids=inner.space.private_ids[::5]).holds
    assert inner.survival(inner.space.private_ids).mean() == pytest.approx(0.5, abs=0.02)
