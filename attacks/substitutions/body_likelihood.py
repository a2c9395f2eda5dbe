"""The public body as judge of a mapping that starts from nothing but counts.

It needs no bigrams to begin with and no table: from ranks of frequency, let every cipher id move to what the public
model expects in its place, and read again.
"""

from collections.abc import Sequence

import numpy as np

from attacks.base import KnownPairs, MappingAttack, Public
from attacks.cryptanalysis.auxiliary import auxiliary_texts, check_auxiliary
from attacks.cryptanalysis.bigrams import BigramModel, Puzzle, unigram_counts
from attacks.cryptanalysis.ciphertext import ciphertext, origin
from attacks.cryptanalysis.judging import Judge
from attacks.cryptanalysis.refining import judged, refined
from attacks.substitutions.decipherment import capacities
from attacks.substitutions.rank_frequency import by_rank
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError
from smd_research.core.guess import MappingGuess


class BodyLikelihood(MappingAttack):
    """Refines ranks of frequency by the likelihood of the public model.

    Args:
        auxiliary: public text to count: ``same`` (the data's own kind), ``reference`` (Python's manual) or ``model``
            (what the public model writes unprompted).
        auxiliary_tokens: how much of it, as far as it goes.
        dispersion: how alike the frequencies of the two texts are; a small one allows them to differ.
        judged: rounds of reading and improving at most.
        judged_tokens: how much of the encoded text is read in each.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(
        self,
        auxiliary: str = "same",
        auxiliary_tokens: int = 200_000,
        dispersion: float = 3.0,
        judged: int = 8,
        judged_tokens: int = 10_000,
    ) -> None:
        check_auxiliary(auxiliary, auxiliary_tokens)
        if min(judged, judged_tokens) < 1 or dispersion <= 0:
            raise ConfigError("body_likelihood needs attack.judged and judged_tokens >= 1, dispersion > 0")
        self._auxiliary, self._auxiliary_tokens = auxiliary, auxiliary_tokens
        self._dispersion, self._judged, self._judged_tokens = dispersion, judged, judged_tokens

    def fit(self, public: Public) -> None:
        """Count public text.

        Raises:
            NotApplicableError: when no public model is known.
        """
        super().fit(public)
        self._base = origin(public)
        self._texts = auxiliary_texts(public, self._auxiliary, self._auxiliary_tokens)
        self._frequency = unigram_counts(self._texts, self.plains)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Improve ranks of frequency; ids that never occur abstain."""
        texts, anchors = ciphertext(views), self.anchors(known)
        counts = unigram_counts(texts, self.ciphers)
        start = MappingGuess(by_rank(counts, self._frequency, anchors, rng))
        model = BigramModel.of(self._texts, self.plains)
        puzzle = Puzzle.of(texts, model, anchors, self.ciphers, self._dispersion)
        judge = Judge(self._base, texts, self._judged_tokens)
        found = refined(start, puzzle, judge, capacities(self.plains), self._judged)
        return judged(found, judge, Judge(self._base, self._texts, judge.tokens))
