"""Rank-frequency analysis: the most frequent cipher id stands for the most frequent token, and so on."""

from collections.abc import Sequence

import numpy as np

from attacks.base import KnownPairs, MappingAttack, Public
from attacks.cryptanalysis.auxiliary import auxiliary_texts, check_auxiliary
from attacks.cryptanalysis.bigrams import unigram_counts
from attacks.cryptanalysis.ciphertext import ciphertext
from smd_research.boundary import AdversaryView
from smd_research.core.guess import MappingGuess, Spent


class RankFrequency(MappingAttack):
    """Sorts both alphabets by count and matches ranks: the floor of what frequencies give away.

    Args:
        auxiliary: public text to count: ``same`` (the data's own kind), ``reference`` (Python's manual) or ``model``
            (what the public model writes unprompted).
        auxiliary_tokens: how much of it, as far as it goes.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(self, auxiliary: str = "same", auxiliary_tokens: int = 200_000) -> None:
        check_auxiliary(auxiliary, auxiliary_tokens)
        self._auxiliary = auxiliary
        self._tokens = auxiliary_tokens

    def fit(self, public: Public) -> None:
        """Count public text."""
        super().fit(public)
        texts = auxiliary_texts(public, self._auxiliary, self._tokens)
        self._frequency = unigram_counts(texts, self.plains)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Match ranks; ties in random order, ids that never occur abstain."""
        counts = unigram_counts(ciphertext(views), self.ciphers)
        return MappingGuess(
            by_rank(counts, self._frequency, self.anchors(known), rng), spent=Spent(candidates=self.ciphers)
        )


def by_rank(counts: np.ndarray, frequency: np.ndarray, anchors: KnownPairs, rng: np.random.Generator) -> np.ndarray:
    """Plain ids ``[V']`` of the cipher ids that occur, by rank among those that are not known; ``-1`` elsewhere."""
    mapping = np.full(len(counts), -1, dtype=np.int64)
    mapping[anchors.cipher] = anchors.plain
    cipher = np.setdiff1d(np.flatnonzero(counts), anchors.cipher)
    plain = np.setdiff1d(np.arange(len(frequency)), anchors.plain)
    cipher, plain = rng.permutation(cipher), rng.permutation(plain)
    cipher = cipher[np.argsort(-counts[cipher], kind="stable")]
    plain = plain[np.argsort(-frequency[plain], kind="stable")]
    matched = min(len(cipher), len(plain))
    mapping[cipher[:matched]] = plain[:matched]
    return mapping
