"""An interpolated Kneser-Ney trigram model: what a language model has to beat before it counts as one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class _Counts:
    """Sorted keys and how often each occurs."""

    keys: Ids
    counts: Ids

    @staticmethod
    def of(keys: Ids) -> "_Counts":
        return _Counts(*np.unique(keys, return_counts=True))

    def __call__(self, keys: Ids) -> Probabilities:
        """The counts of ``keys``, 0 where a key never occurred."""
        if not len(self.keys):
            return np.zeros(len(keys))
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0).astype(np.float64)

    def discount(self) -> float:
        """Absolute discount ``n1 / (n1 + 2 n2)`` (Ney, Essen and Kneser, 1994)."""
        once, twice = int((self.counts == 1).sum()), int((self.counts == 2).sum())
        return once / (once + 2 * twice) if twice else 0.75


class Trigram:
    """Interpolated Kneser-Ney over token ids (Chen and Goodman, 1999, section 2.8).

    The highest order discounts counts, the lower orders continuation counts (in how many contexts a token was seen),
    and below the unigram stands the uniform distribution, so that every probability is positive and each distribution
    sums to one.
    """

    def __init__(self, documents: list[list[int]], vocabulary: int) -> None:
        """Count.

        Args:
            documents: token ids of each training document, at least two; no n-gram crosses from one to the next.
            vocabulary: number of token ids.
        """
        self._size = size = vocabulary
        arrays = [_padded(document) for document in documents]
        self._trigrams = _Counts.of(np.concatenate([(a[:-2] * size + a[1:-1]) * size + a[2:] for a in arrays]))
        self._histories = _weighted(self._trigrams.keys // size, self._trigrams.counts)
        self._followers = _Counts.of(self._trigrams.keys // size)
        # In how many contexts each bigram was seen, and the same for each token.
        self._bigrams = _Counts.of(self._trigrams.keys % size**2)
        self._bigram_total = _weighted(self._bigrams.keys // size, self._bigrams.counts)
        self._bigram_followers = _Counts.of(self._bigrams.keys // size)
        self._unigrams = _Counts.of(self._bigrams.keys % size)
        self._discounts = tuple(counts.discount() for counts in (self._unigrams, self._bigrams, self._trigrams))

    def log_probabilities(self, document: list[int]) -> Probabilities:
        """Natural logarithms of the probability of each token after the first, ``[n - 1]``."""
        ids = _padded(document)
        first, second, token = ids[:-2], ids[1:-1], ids[2:]
        return np.log(self._trigram(first, second, token, self._bigram(second, token)))

    def _unigram(self, token: Ids) -> Probabilities:
        discount, total = self._discounts[0], float(self._unigrams.counts.sum())
        left_over = discount * len(self._unigrams.keys) / total
        return np.maximum(self._unigrams(token) - discount, 0) / total + left_over / self._size

    def _bigram(self, previous: Ids, token: Ids) -> Probabilities:
        counts = self._bigrams(previous * self._size + token)
        followers = self._bigram_followers(previous)
        return _interpolate(counts, self._bigram_total(previous), followers, self._discounts[1], self._unigram(token))

    def _trigram(self, first: Ids, second: Ids, token: Ids, lower: Probabilities) -> Probabilities:
        history = first * self._size + second
        counts = self._trigrams(history * self._size + token)
        return _interpolate(counts, self._histories(history), self._followers(history), self._discounts[2], lower)


def _padded(document: list[int]) -> Ids:
    """The document behind a second copy of its first token, so that its second token has a history of two."""
    return np.asarray([document[0], *document], dtype=np.int64)


def _weighted(keys: Ids, counts: Ids) -> _Counts:
    unique, inverse = np.unique(keys, return_inverse=True)
    return _Counts(unique, np.bincount(inverse, weights=counts).astype(np.int64))


def _interpolate(
    counts: Probabilities, total: Probabilities, followers: Probabilities, discount: float, lower: Probabilities
) -> Probabilities:
    """Discounted counts plus the mass that the discount left, spread by the lower order; the lower order alone where
    the history never occurred."""  # noqa: D205, D209
    seen = np.maximum(total, 1)
    mixed = np.maximum(counts - discount, 0) / seen + discount * followers / seen * lower
    return np.where(total > 0, mixed, lower)
