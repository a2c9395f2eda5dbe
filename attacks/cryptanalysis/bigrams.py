"""Bigram statistics of encoded and of public text, and what they say of a mapping between the two alphabets.

A language model of public text gives each bigram ``log Q(b|a) = log u(b) + back_off(a) + excess(a, b)``, where the
excess is zero for a bigram that was never seen (Witten-Bell smoothing, Witten and Bell 1991): all but a sum of rank two
is sparse, so the likelihood of a mapping and its gradient are sparse products.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from attacks.base import Ids, KnownPairs

Floats = NDArray[np.float64]
_UNSEEN = 0.5  # added to every count of public text: an unseen token is possible, a seen one likelier


def bigram_counts(texts: Sequence[Ids], size: int) -> sparse.csr_array:
    """How often each id follows each other one ``[size, size]``; no bigram crosses from one text to the next."""
    pairs = [(text[:-1], text[1:]) for text in texts if len(text) > 1]
    first = np.concatenate([a for a, _ in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    second = np.concatenate([b for _, b in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    ones = np.ones(len(first), dtype=np.float64)
    return sparse.csr_array(sparse.coo_array((ones, (first, second)), shape=(size, size)))


def unigram_counts(texts: Sequence[Ids], size: int) -> Floats:
    """How often each id occurs ``[size]``."""
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *texts])
    return np.bincount(flat, minlength=size).astype(np.float64)


@dataclass(frozen=True, repr=False, eq=False)
class BigramModel:
    """A Witten-Bell bigram model of public text.

    Attributes:
        unigram: probability of each token ``[V]``.
        back_off: logarithm of the mass that each history leaves to the unigram ``[V]``.
        excess: ``log Q(b|a) - log u(b) - back_off(a)`` of the bigrams seen ``[V, V]``.
    """

    unigram: Floats
    back_off: Floats
    excess: sparse.csr_array

    @classmethod
    def of(cls, texts: Sequence[Ids], size: int) -> "BigramModel":
        """Count public texts."""
        smoothed = unigram_counts(texts, size) + _UNSEEN
        unigram = smoothed / smoothed.sum()
        counts = bigram_counts(texts, size)
        followers = np.diff(counts.indptr).astype(np.float64)
        total = np.asarray(counts.sum(axis=1)).ravel()
        back_off = np.log(np.maximum(followers, 1) / np.maximum(total + followers, 1))
        excess = counts.copy()
        rows = np.repeat(np.arange(size), np.diff(counts.indptr))
        excess.data = np.log1p(counts.data / (followers[rows] * unigram[counts.indices]))
        return cls(unigram, back_off, excess)


@dataclass(frozen=True, repr=False, eq=False)
class Puzzle:
    """Encoded text to be read with a bigram model; rows are the cipher ids that occur.

    Attributes:
        types: the cipher ids that occur, the most frequent first ``[k]``.
        counts: how often each does ``[k]``.
        bigrams: among them ``[k, k]``.
        model: of public text.
        prior: log-likelihood of each cipher id's count under each plain id ``[k, V]``.
        fixed: plain id of each type that is known, else ``-1`` ``[k]``.
    """

    types: Ids
    counts: Floats
    bigrams: sparse.csr_array
    model: BigramModel
    prior: NDArray[np.float32]
    fixed: Ids

    @classmethod
    def of(
        cls, texts: Sequence[Ids], model: BigramModel, anchors: KnownPairs, size: int, dispersion: float
    ) -> "Puzzle":
        """Count encoded texts.

        Args:
            texts: in cipher ids.
            model: of public text.
            anchors: pairs that are known.
            size: number of cipher ids.
            dispersion: see ``count_prior``.
        """
        counts = unigram_counts(texts, size)
        types = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
        bigrams = sparse.csr_array(bigram_counts(texts, size)[types][:, types])
        fixed = np.full(size, -1, dtype=np.int64)
        fixed[anchors.cipher] = anchors.plain
        return cls(types, counts[types], bigrams, model, count_prior(counts[types], model, dispersion), fixed[types])

    def gradient(self, soft: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-likelihood of each choice ``[k, V]`` while all others are as ``soft [k, V]`` has them."""
        excess, bigrams = self.model.excess.astype(np.float32), self.bigrams.astype(np.float32)
        right = (excess @ (bigrams @ soft).T).T
        left = (excess.T @ (bigrams.T @ soft).T).T
        found: NDArray[np.float32] = self.prior + right + left
        return found

    def beside(self, choice: Ids) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the text right and left of it says of each choice ``[k, V]``, while all others are as ``choice [k]``.

        The two terms of ``gradient`` for a hard assignment, whose products stay sparse; ``-1`` stands for unread.
        """
        read = np.flatnonzero(choice >= 0)
        ones = np.ones(len(read), dtype=np.float32)
        hard = sparse.csr_array((ones, (read, choice[read])), shape=self.prior.shape)
        right = (self.model.excess @ (self.bigrams @ hard).T).toarray().T
        left = (self.model.excess.T @ (self.bigrams.T @ hard).T).toarray().T
        return right.astype(np.float32), left.astype(np.float32)

    def likelihood(self, choice: Ids) -> float:
        """Log-likelihood of a mapping ``[k]``, up to what does not depend on it."""
        rows = np.repeat(np.arange(len(choice)), np.diff(self.bigrams.indptr))
        excess = np.asarray(self.model.excess[choice[rows], choice[self.bigrams.indices]]).ravel()
        own = self.prior[np.arange(len(choice)), choice].sum(dtype=np.float64)
        return float(own + self.bigrams.data @ excess)


def count_prior(counts: Floats, model: BigramModel, dispersion: float) -> NDArray[np.float32]:
    """Log-likelihood ``[k, V]`` of counts under a negative binomial around the public frequencies.

    Args:
        counts: of the cipher ids ``[k]``.
        model: of public text.
        dispersion: ``r``; a small one allows frequencies to differ much between the two texts.
    """
    mean = counts.sum() * model.unigram
    success = mean / (mean + dispersion)
    found = counts[:, None] * np.log(success) + dispersion * np.log1p(-success)
    prior: NDArray[np.float32] = (found + counts[:, None] * model.back_off).astype(np.float32)
    return prior
