"""Masks are uniform, each use and product has its own, and the key alone decides them."""

import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from smd_research.mechanisms.integers.field import FIELDS, WIDE, Field
from smd_research.mechanisms.integers.masks import KEY_BYTES, MaskStream

KEY = bytes(range(KEY_BYTES))
PRIMES = [2, 3, 5, 257, *(field.prime for field in FIELDS.values())]


@given(
    prime=st.sampled_from(PRIMES),
    uses=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    product=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
)
@settings(deadline=None)
def test_many_uses_at_once_are_the_masks_one_by_one(prime: int, uses: list[int], product: int, count: int) -> None:
    stream = MaskStream(KEY)
    rows = stream.rows(uses, product, count, prime)
    assert rows.shape == (len(uses), count)
    assert rows.dtype == torch.int64
    assert 0 <= rows.min() <= rows.max() < prime
    for row, use in zip(rows, uses, strict=True):
        assert torch.equal(row, MaskStream(KEY).uniform(use, product, count, prime))
        # a longer mask begins with the shorter one: words are taken in order
        assert torch.equal(row, stream.uniform(use, product, count + 7, prime)[:count])


def test_the_stream_is_chacha20_of_rfc_8439() -> None:
    # section 2.4.2: key 00..1f, nonce 00 00 00 00 00 00 00 4a 00 00 00 00; its keystream begins with block 1, at word 8
    words = MaskStream(KEY).uniform(0x4A000000 << 32, 0, 16, 2**61 - 1)
    first = int.from_bytes(bytes.fromhex("224f51f3401bd9e1"), "little")
    assert words[8].item() == first & (2**61 - 1)


def test_masks_differ_by_key_use_and_product() -> None:
    streams = [MaskStream(KEY), MaskStream(bytes(KEY_BYTES)), MaskStream(KEY).child("a"), MaskStream(KEY).child("b")]
    masks = {
        tuple(stream.uniform(use, product, 8, WIDE.prime).tolist())
        for stream, use, product in itertools.product(streams, (0, 1, 2**33), (0, 1, 2**20))
    }
    assert len(masks) == 4 * 3 * 3
    numbers = [number for mask in masks for number in mask]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_limbs_of_masks_are_uniform(field: Field) -> None:
    masks = MaskStream(KEY).rows(range(256), 3, 768, field.prime).numpy().ravel()
    bits = field.prime.bit_length()
    for shift in range(0, bits - 7, 8):
        counts = np.bincount(masks >> shift & 255, minlength=256)
        assert chisquare(counts).pvalue > 1e-4
    top = np.bincount(masks >> bits - 8, minlength=256)
    assert chisquare(top).pvalue > 1e-4
    # the control: the same test sees masks that are short of a residue's top bit, or of a factor
    assert chisquare(np.bincount(masks // 2 >> bits - 8, minlength=256)).pvalue < 1e-9
    assert chisquare(np.bincount(masks * 2 & 255, minlength=256)).pvalue < 1e-9


@pytest.mark.parametrize("prime", [3, 5, 257])
def test_rejection_leaves_no_residue_favoured(prime: int) -> None:
    masks = MaskStream(KEY).rows(range(64), 1, 1000, prime).numpy().ravel()
    assert chisquare(np.bincount(masks, minlength=prime)).pvalue > 1e-4


def test_masks_of_neighbouring_uses_are_uncorrelated() -> None:
    masks = MaskStream(KEY).rows(range(400), 0, 64, WIDE.prime).double()
    correlation = torch.corrcoef(masks)
    off = correlation[~torch.eye(400, dtype=torch.bool)]
    assert off.abs().max() < 6 / 64**0.5
    assert off.mean().abs() < 0.01


@pytest.mark.parametrize("length", [0, 16, 33])
def test_a_key_of_another_length_is_refused_without_being_shown(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes") as refused:
        MaskStream(b"s" * length)
    assert "ssss" not in str(refused.value)
    assert "\\x01\\x02" not in repr(MaskStream(KEY))


@pytest.mark.slow
def test_a_prefill_of_masks_is_quick() -> None:
    stream = MaskStream(KEY)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for product in range(30):
            stream.rows(range(64), product, 768, WIDE.prime)
        best = min(best, time.process_time() - start)
    assert best < 0.1
