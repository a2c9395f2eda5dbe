"""Horizontal shaking: a keyed substitution of token ids (reconstructed; arXiv 2403.07283)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smd_research.core.errors import PromptError
from smd_research.mechanisms.shaking.key import Key
from smd_research.mechanisms.shaking.streams import KeyStream

Ids = NDArray[np.int64]


@dataclass(frozen=True, repr=False, eq=False)
class Substitution:
    """Which cipher ids stand for which plain ids.

    Attributes:
        plain_of: plain id of every cipher id, int64 ``[V']``; ``V' = V`` without homophones.
        cipher_of: the first cipher id of every plain id, int64 ``[V]``.
        homophones: every cipher id of each plain id, in order, the first repeated where there are fewer; int64
            ``[V, most]``.
        counts: how many there are, int64 ``[V]``.
    """

    plain_of: Ids
    cipher_of: Ids
    homophones: Ids
    counts: Ids

    @classmethod
    def of(cls, key: Key, special: Collection[int]) -> "Substitution":
        """The key's substitution: a uniform permutation of a keyed share of the ids that are not special.

        With ``m`` homophones each of the key's frequent ids has ``m`` cipher ids: the alphabet grows by ``m - 1`` ids
        for each, and the additional symbols are permuted among the others.

        Args:
            key: which share, how many homophones, and the secret.
            special: ids that never move.
        """
        plain = np.arange(key.vocab)
        movable = np.setdiff1d(plain, np.fromiter(special, dtype=np.int64, count=len(special)))
        chosen = key.stream("horizontal", "subset").permutation(len(movable))[: round(key.fraction * len(movable))]
        extra = np.repeat(np.array(key.frequent, dtype=np.int64), key.homophones - 1)
        places = np.concatenate([np.sort(movable[chosen]), key.vocab + np.arange(len(extra))])
        plain_of = np.concatenate([plain, extra]).astype(np.int64)
        plain_of[places] = plain_of[places][key.stream("horizontal", "order").permutation(len(places))]
        return cls.from_plain_of(plain_of, key.vocab)

    @classmethod
    def from_plain_of(cls, plain_of: ArrayLike, vocab: int) -> "Substitution":
        """The substitution with these plain ids ``[V']``, each of ``0 .. vocab - 1`` at least once."""
        plain_of = np.asarray(plain_of, dtype=np.int64)
        order = np.argsort(plain_of, kind="stable").astype(np.int64)
        counts = np.bincount(plain_of, minlength=vocab)
        starts = np.cumsum(counts) - counts
        columns = np.arange(int(counts.max()))[None]
        within = np.where(columns < counts[:, None], columns, 0)
        homophones = order[starts[:, None] + within]
        return cls(plain_of, homophones[:, 0].copy(), homophones, counts)

    @property
    def size(self) -> int:
        """Number ``V'`` of cipher ids."""
        return len(self.plain_of)

    def encode(self, ids: ArrayLike, rng: np.random.Generator | None = None) -> Ids:
        """Cipher ids of plain ids of any shape; one of its homophones for each occurrence, without ``rng`` the first.

        Raises:
            PromptError: for an id that the key does not know.
        """
        plain = _known(ids, len(self.cipher_of))
        if rng is None:
            return self.cipher_of[plain]
        picked = (rng.random(plain.shape) * self.counts[plain]).astype(np.int64)
        return self.homophones[plain, picked]

    def decode(self, ids: ArrayLike) -> Ids:
        """Plain ids of cipher ids of any shape.

        Raises:
            PromptError: for an id that the key does not know.
        """
        return self.plain_of[_known(ids, self.size)]


def _known(ids: ArrayLike | Sequence[int], size: int) -> Ids:
    known = np.asarray(ids, dtype=np.int64)
    if known.size and not 0 <= int(known.min()) <= int(known.max()) < size:
        raise PromptError(f"a token id lies outside 0 .. {size - 1}, which is all this key knows: is it this model's?")
    return known


def label_permutation(stream: KeyStream, count: int) -> Ids:
    """A keyed permutation of ``count`` labels: the label that is sent for each."""
    return stream.child("labels").permutation(count)
