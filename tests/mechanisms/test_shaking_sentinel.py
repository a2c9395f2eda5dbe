"""SentinelLMs' construction: few keys, its own inverse, and a vertical part that a LayerNorm deletes."""

import string

import numpy as np
import pytest
import torch

from smd_research.mechanisms.shaking.sentinel import KEYS, glides, pairwise_swap, seed_of

SPECIAL = frozenset({0, 1, 2})


def _normed(table: np.ndarray) -> np.ndarray:
    return torch.nn.functional.layer_norm(torch.from_numpy(table), table.shape[1:], eps=0.0).numpy()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_layer_norm_takes_the_glides_away(count: int) -> None:
    table = np.random.default_rng(0).normal(0.2, 1.0, (500, 64))
    moved = glides(table, 17, count)
    assert np.abs(moved - table).max() > 0.01
    assert np.abs(_normed(moved) - _normed(table)).max() < 1e-12
    centred = moved - moved.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, table - table.mean(1, keepdims=True), atol=1e-13)


def test_two_reflections_cancel_but_for_a_shift() -> None:
    table = np.random.default_rng(1).normal(size=(50, 16))
    shift = glides(table, 3, 2) - table
    np.testing.assert_allclose(shift, np.full_like(shift, shift[0, 0]), atol=1e-13)


def test_there_are_at_most_ten_thousand_keys() -> None:
    rng = np.random.default_rng(0)
    passkeys = ["".join(rng.choice(list(string.printable), 200)) for _ in range(500)]
    assert all(0 <= seed_of(one) < KEYS == 10_000 for one in passkeys)
    assert seed_of("ab") == seed_of("ba") == 195
    assert len({seed_of("".join(order)) for order in ("stop", "pots", "opts", "tops")}) == 1


@pytest.mark.parametrize("vocab", [100, 101])
def test_ids_are_swapped_in_pairs(vocab: int) -> None:
    code, ids = pairwise_swap(5, vocab, SPECIAL), np.arange(vocab)
    cipher = code.encode(ids)
    assert code.encode(cipher).tolist() == ids.tolist() == code.decode(cipher).tolist()
    assert cipher[:3].tolist() == [0, 1, 2]
    assert (cipher[3:] != ids[3:]).sum() == (vocab - 3) // 2 * 2
    assert pairwise_swap(6, vocab, SPECIAL).encode(ids).tolist() != cipher.tolist()
