"""SentinelLMs' construction (arXiv 2312.17342; AAAI 2024), as its released converter does it: a cautionary baseline.

Every choice comes from a seed below 10 000, the sum of the passkey's character codes. Ids that are not special are
swapped in pairs. Rows of the table are moved by glide reflections whose mirror's normal and whose translation are both
multiples of the all-ones vector, so that nothing changes but the mean of a row, which a LayerNorm takes away again: the
vertical part neither protects nor costs anything before one. How far a glide goes is not told; here it is drawn
uniformly within one ``sigma`` (reconstructed).
"""

from collections.abc import Collection

import numpy as np

from smd_research.mechanisms.shaking.horizontal import Ids, Substitution
from smd_research.mechanisms.shaking.streams import Floats

KEYS = 10_000
"""How many keys there are."""


def seed_of(passkey: str) -> int:
    """The seed that a passkey comes down to."""
    return sum(map(ord, passkey)) % KEYS


def pairwise_swap(seed: int, vocab: int, special: Collection[int]) -> Substitution:
    """Ids that are not special swapped two by two, an odd one left: its own inverse.

    Args:
        seed: below ``KEYS``.
        vocab: number of ids.
        special: ids that never move.
    """
    movable: Ids = np.setdiff1d(np.arange(vocab), np.fromiter(special, dtype=np.int64, count=len(special)))
    shuffled = np.random.default_rng(seed).permutation(movable)
    pairs = shuffled[: len(shuffled) // 2 * 2].reshape(-1, 2)
    plain_of = np.arange(vocab)
    plain_of[pairs] = pairs[:, ::-1]
    return Substitution.from_plain_of(plain_of, vocab)


def glides(table: Floats, seed: int, count: int) -> Floats:
    """A number of glide reflections: the mean of each row changes its sign and is shifted, nothing else.

    Args:
        table: ``[V, d]``.
        seed: below ``KEYS``.
        count: how many, one after another.
    """
    moved = np.asarray(table, dtype=np.float64)
    shifts = np.random.default_rng([seed, 1]).uniform(-1, 1, count) * moved.std()
    for shift in shifts:
        moved = moved - 2 * moved.mean(axis=1, keepdims=True) + shift
    return moved
