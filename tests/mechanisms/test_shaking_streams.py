"""A key's streams: told apart by purpose, of the law they name, never of an order of calls."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smd_research.mechanisms.shaking import KeyStream

SECRET = bytes(range(16))


def test_a_short_secret_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes, not 15"):
        KeyStream(SECRET[:15])
    assert SECRET.hex() not in repr(KeyStream(SECRET).child("tilt"))


def test_the_stream_is_shake_256_of_its_parts_with_their_lengths() -> None:
    parts = [b"smd-research shaking stream 1", SECRET, b"sname", b"i3", b"words"]
    whole = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    expected = np.frombuffer(hashlib.shake_256(whole).digest(40), dtype="<u8")
    assert KeyStream(SECRET).child("name", 3).words(5).tolist() == expected.tolist()


@given(st.lists(st.one_of(st.text(max_size=4), st.integers(-9, 9)), max_size=3),
       st.lists(st.one_of(st.text(max_size=4), st.integers(-9, 9)), max_size=3))  # fmt: skip
def test_two_purposes_share_nothing(one: list[str | int], other: list[str | int]) -> None:
    """Also where their words would read alike in a row: ("ab", "c") is not ("a", "bc"), and "1" is not 1."""
    same = [(type(word), word) for word in one] == [(type(word), word) for word in other]
    first, second = (KeyStream(SECRET).child(*words).octets(16) for words in (one, other))
    assert (first == second) == same


def test_ways_of_use_and_secrets_share_nothing_and_order_does_not_count() -> None:
    stream = KeyStream(SECRET)
    assert stream.octets(16) != stream.words(2).tobytes()
    assert not np.allclose(stats.norm.cdf(stream.normal(8)), stream.uniform(8))
    assert KeyStream(bytes(16)).octets(16) != stream.octets(16)
    assert stream.words(9)[:4].tolist() == stream.words(4).tolist()
    assert KeyStream(SECRET, ("a",)).octets(8) == stream.child("a").octets(8)


def test_draws_follow_their_laws() -> None:
    stream = KeyStream(SECRET)
    uniform = stream.uniform(50, 100)
    assert uniform.shape == (50, 100)
    assert 0 < uniform.min() < uniform.max() < 1
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(stream.normal(5000), "norm").pvalue > 1e-3
    assert stats.kstest(stream.gamma(7.0, 0.5, 5000), stats.gamma(7.0, scale=0.5).cdf).pvalue > 1e-3


def test_a_permutation_is_one_and_every_place_is_as_likely() -> None:
    assert sorted(KeyStream(SECRET).permutation(1000).tolist()) == list(range(1000))
    firsts = [int(KeyStream(SECRET).child(i).permutation(6)[0]) for i in range(3000)]
    assert stats.chisquare(np.bincount(firsts, minlength=6)).pvalue > 1e-3
