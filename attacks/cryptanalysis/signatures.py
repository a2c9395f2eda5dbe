"""What describes a token without naming it: how often it occurs, how soon again, and what stands beside it.

None of it changes under a substitution, so tokens of encoded text can be compared with tokens of public text. Features
of the neighbours are averaged into each token's own, twice, as in the refinement test for isomorphic graphs (Weisfeiler
and Leman, 1968). How much a feature varies between two samples of the same language is learned from public text alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from attacks.base import Ids
from attacks.cryptanalysis.bigrams import Floats, bigram_counts, unigram_counts

_SORTED = 6  # most frequent neighbours whose shares are listed
_WITHIN = (2, 8, 32)  # tokens within which a recurrence counts
_FEWEST = 3  # occurrences from which a token has a context worth comparing
_BANDS = np.array([3, 6, 12, 25, 50, 100, 200, 500])  # of counts, each with a covariance of its own
_SHRINK = 0.1


def signatures(texts: Sequence[Ids], size: int) -> Floats:
    """Features of every id ``[size, f]``; zero rows for ids that do not occur."""
    counts, pairs = unigram_counts(texts, size), bigram_counts(texts, size)
    right, left = _shares(pairs), _shares(sparse.csr_array(pairs.T))
    rate = np.log(np.maximum(counts, 1) / max(counts.sum(), 1))
    spread = (_spread(right), _spread(left), pairs.diagonal()[:, None] / np.maximum(counts, 1)[:, None])
    own = np.column_stack([rate, *spread, _recurrence(texts, counts)])
    after, before = right @ own, left @ own
    found = np.column_stack([own, after, before, right @ after, left @ before])
    return np.where(counts[:, None] > 0, found, 0.0)


def _shares(pairs: sparse.csr_array) -> sparse.csr_array:
    """Each row divided by its sum."""
    total = np.maximum(np.asarray(pairs.sum(axis=1)).ravel(), 1)
    shares = pairs.copy()
    shares.data = shares.data / np.repeat(total, np.diff(pairs.indptr))
    return shares


def _spread(shares: sparse.csr_array) -> Floats:
    """Entropy and the largest shares of each row, in order ``[size, 1 + _SORTED]``."""
    rows = np.repeat(np.arange(shares.shape[0]), np.diff(shares.indptr))
    order = np.lexsort((-shares.data, rows))
    place = np.arange(len(rows)) - shares.indptr[rows]
    largest = np.zeros((shares.shape[0], _SORTED))
    kept = place < _SORTED
    largest[rows[kept], place[kept]] = np.sqrt(shares.data[order][kept])
    entropy = -np.bincount(rows, weights=shares.data * np.log(shares.data), minlength=shares.shape[0])
    return np.column_stack([entropy, largest])


def _recurrence(texts: Sequence[Ids], counts: Floats) -> Floats:
    """Share of each id's occurrences that follow another one within so many tokens ``[size, len(_WITHIN)]``."""
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *texts])
    text = np.repeat(np.arange(len(texts)), [len(one) for one in texts])
    order = np.argsort(flat, kind="stable")
    again = (flat[order][1:] == flat[order][:-1]) & (text[order][1:] == text[order][:-1])
    gaps = np.diff(order)
    found = [
        np.bincount(flat[order][1:][again & (gaps <= within)], minlength=len(counts)) / np.maximum(counts, 1)
        for within in _WITHIN
    ]
    return np.column_stack(found)


@dataclass(frozen=True, repr=False, eq=False)
class SignatureComparison:
    """How well each cipher id's signature fits each plain id's: learned on public text cut in two.

    Attributes:
        bands: inverse covariance of the difference of two samples, for each band of counts ``[b, f, f]``.
        features: of the plain ids ``[V, f]``.
    """

    bands: Floats
    features: Floats

    @classmethod
    def learned(cls, texts: Sequence[Ids], size: int, tokens: int) -> "SignatureComparison":
        """Compare a part of about ``tokens`` tokens with the rest.

        Args:
            texts: public.
            size: of the plain alphabet.
            tokens: of the encoded text that will be read.
        """
        ends = np.cumsum([len(text) for text in texts])
        cut = int(np.searchsorted(ends, min(tokens, ends[-1] // 2))) + 1
        part, rest = list(texts[:cut]), list(texts[cut:])
        counts = unigram_counts(part, size)
        known = (counts >= _FEWEST) & (unigram_counts(rest, size) >= _FEWEST)
        difference = signatures(part, size) - signatures(rest, size)
        pooled = np.cov(difference[known].T) if known.sum() > 1 else np.eye(difference.shape[1])
        bands = []
        for low, high in zip(_BANDS, [*_BANDS[1:], np.inf], strict=True):
            inside = known & (counts >= low) & (counts < high)
            own = np.cov(difference[inside].T) if inside.sum() > 1 else pooled
            weight = inside.sum() / (inside.sum() + 2 * len(pooled))
            mixed = weight * own + (1 - weight) * pooled
            scale = np.diag(np.diag(mixed)) * _SHRINK + np.eye(len(mixed)) * 1e-6
            bands.append(np.linalg.inv(mixed * (1 - _SHRINK) + scale))
        return cls(np.stack(bands), signatures(texts, size))

    def scores(self, features: Floats, counts: Floats) -> Floats:
        """Log-likelihood ``[k, V]`` of cipher ids with ``features [k, f]`` and ``counts [k]``; 0 where rare."""
        found = np.zeros((len(features), len(self.features)))
        band = np.searchsorted(_BANDS, counts, side="right") - 1
        for index in range(len(_BANDS)):
            rows = np.flatnonzero(band == index)
            if len(rows):
                root = np.linalg.cholesky(self.bands[index])
                one, two = features[rows] @ root, self.features @ root
                squared = (one**2).sum(1)[:, None] + (two**2).sum(1)[None] - 2 * one @ two.T
                found[rows] = -0.5 * squared
        return found
