"""Keyed substitution: what it permutes, what never moves, and that it can be undone."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smd_research.core.errors import PromptError
from smd_research.data.synthetic import generate
from smd_research.mechanisms.shaking import Key, KeyStream, Substitution, label_permutation
from smd_research.models import Bundle, sources

SPECIAL = frozenset({0, 1, 2, 7})
KEY = Key(1, bytes(range(16)), "m", "t", 200, 8, 1.0, 1, (), (), False)


@given(
    st.binary(min_size=16, max_size=16), st.floats(0, 1), st.integers(1, 4), st.sets(st.integers(8, 199), max_size=9)
)
def test_encoding_is_undone_and_special_ids_never_move(
    secret: bytes, fraction: float, homophones: int, frequent: set[int]
) -> None:
    key = replace(KEY, secret=secret, fraction=fraction, homophones=homophones, frequent=tuple(sorted(frequent)))
    code, ids = Substitution.of(key, SPECIAL), np.arange(200)
    rng = np.random.default_rng(0)
    assert code.size == 200 + (homophones - 1) * len(frequent)
    assert sorted(set(code.plain_of.tolist())) == ids.tolist()
    for cipher in (code.encode(ids), code.encode(ids, rng), code.encode(ids.reshape(20, 10)).ravel()):
        assert code.decode(cipher).tolist() == ids.tolist()
        assert cipher[sorted(SPECIAL)].tolist() == sorted(SPECIAL)
    assert code.counts[sorted(frequent)].tolist() == [homophones] * len(frequent)
    assert int(code.counts.sum()) == code.size
    moved = int((code.encode(ids) != ids).sum())
    assert homophones > 1 or moved <= round(fraction * 196)


def test_a_whole_permutation_leaves_almost_nothing_and_a_share_leaves_the_rest() -> None:
    large = replace(KEY, vocab=5000)
    whole = Substitution.of(large, SPECIAL).cipher_of
    assert (whole == np.arange(5000)).sum() - len(SPECIAL) < 8
    quarter = Substitution.of(replace(large, fraction=0.25), SPECIAL).cipher_of
    assert (quarter != np.arange(5000)).mean() == pytest.approx(0.25, abs=0.01)
    assert (Substitution.of(replace(large, fraction=0.0), SPECIAL).cipher_of == np.arange(5000)).all()
    other = Substitution.of(replace(large, secret=bytes(16)), SPECIAL).cipher_of
    assert (whole == other).mean() < 0.01


def test_each_occurrence_takes_any_of_its_homophones() -> None:
    code = Substitution.of(replace(KEY, homophones=4, frequent=(9,)), SPECIAL)
    seen = code.encode(np.full(4000, 9), np.random.default_rng(0))
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-3
    assert len(set(code.encode(np.full(40, 9)).tolist())) == 1


def test_ids_of_another_model_are_refused() -> None:
    code = Substitution.of(KEY, SPECIAL)
    for ids in ([200], [-1]):
        with pytest.raises(PromptError, match=r"outside 0 \.\. 199"):
            code.encode(ids)
        with pytest.raises(PromptError, match=r"outside 0 \.\. 199"):
            code.decode(ids)
    assert code.encode([]).tolist() == []


def test_labels_are_permuted_by_a_stream_of_their_own() -> None:
    labels = label_permutation(KeyStream(bytes(16)), 5)
    assert sorted(labels.tolist()) == list(range(5))
    orders = {tuple(label_permutation(KeyStream(bytes([i] * 16)), 3).tolist()) for i in range(60)}
    assert len(orders) == 6


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


def test_ten_thousand_texts_come_back_as_they_went(llama: Bundle) -> None:
    documents = generate("mixed", "train", 1100, 0)
    texts = [text for one in documents for text in re.split(r"[.,:]?\s{1,2}(?=[A-Z])", one.text) if text][:10_000]
    assert len(texts) == 10_000
    key = Key.draw(llama, homophones=3, frequent=tuple(range(20, 90)), secret=bytes(range(16)))
    code, rng = Substitution.of(key, llama.special_ids), np.random.default_rng(0)
    for ids in llama.tokenizer(texts)["input_ids"]:
        cipher = code.encode(ids, rng)
        assert code.decode(cipher).tolist() == ids
        assert [i for i in ids if i in llama.special_ids] == [i for i in cipher.tolist() if i in llama.special_ids]
