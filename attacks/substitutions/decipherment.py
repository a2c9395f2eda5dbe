"""Read encoded text as a substitution cipher: equal plaintext is equal ciphertext, whatever was done to the table.

Signatures of tokens in context give first guesses (``signatures``), soft assignment and exchanges on the bigram
likelihood better ones (``annealing``), and the public model, which knows more than bigrams, the last (``refining``).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attacks.base import Ids, KnownPairs, MappingAttack, Public
from attacks.cryptanalysis.annealing import Cooling, Soft, anneal, assigned, climb
from attacks.cryptanalysis.auxiliary import auxiliary_texts, check_auxiliary
from attacks.cryptanalysis.bigrams import BigramModel, Puzzle, unigram_counts
from attacks.cryptanalysis.ciphertext import ciphertext
from attacks.cryptanalysis.judging import Judge
from attacks.cryptanalysis.refining import judged, refined
from attacks.cryptanalysis.signatures import SignatureComparison, signatures
from attacks.substitutions.rank_frequency import by_rank
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import MappingGuess, Spent

_CONTEXT = 3  # occurrences from which a signature says more than a count
_TRUST = 0.3  # of signatures: their features are no independent witnesses


class Decipherment(MappingAttack):
    """Decipherment from encoded text and public text.

    Args:
        auxiliary: public text to count: ``same`` (the data's own kind), ``reference`` (Python's manual) or ``model``
            (what the public model writes unprompted).
        auxiliary_tokens: how much of it, as far as it goes.
        restarts: starts, each from signatures disturbed anew but the first; the likeliest mapping wins.
        steps: of cooling in each.
        exchanges: rounds of exchanges at most.
        dispersion: how alike the frequencies of the two texts are; a small one allows them to differ.
        judged: rounds in which the public model reads the text and improves the mapping; 0: bigrams alone.
        judged_tokens: how much of the encoded text it reads in each.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(
        self,
        auxiliary: str = "same",
        auxiliary_tokens: int = 200_000,
        restarts: int = 1,
        steps: int = 10,
        exchanges: int = 20,
        dispersion: float = 3.0,
        judged: int = 4,
        judged_tokens: int = 10_000,
    ) -> None:
        check_auxiliary(auxiliary, auxiliary_tokens)
        if min(restarts, steps, judged_tokens) < 1 or min(exchanges, judged) < 0 or dispersion <= 0:
            raise ConfigError(
                "decipherment needs attack.restarts, steps and judged_tokens >= 1, exchanges and judged >= 0, "
                "dispersion > 0"
            )
        self._auxiliary, self._auxiliary_tokens = auxiliary, auxiliary_tokens
        self._restarts, self._steps, self._exchanges = restarts, steps, exchanges
        self._dispersion, self._judged, self._judged_tokens = dispersion, judged, judged_tokens

    def fit(self, public: Public) -> None:
        """Count public text.

        Raises:
            NotApplicableError: when there is too little of it.
        """
        super().fit(public)
        self._texts = auxiliary_texts(public, self._auxiliary, self._auxiliary_tokens)
        if len(self._texts) < 2:
            raise NotApplicableError("counts public text: there are fewer than two documents of it")
        self._model = BigramModel.of(self._texts, self.plains)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Decipher all encoded text of the views; ids that never occur abstain."""
        texts, anchors = ciphertext(views), self.anchors(known)
        puzzle = Puzzle.of(texts, self._model, anchors, self.ciphers, self._dispersion)
        capacity = capacities(self.plains)
        starts = [self._start(puzzle, texts, capacity, rng if number else None) for number in range(self._restarts)]
        choice, value = max(starts, key=lambda one: one[1])
        mapping = np.full(self.ciphers, -1, dtype=np.int64)
        mapping[anchors.cipher] = anchors.plain
        mapping[puzzle.types] = choice
        spent = Spent(candidates=self._restarts * self._steps * puzzle.prior.size, steps=self._restarts * self._steps)
        found = MappingGuess(mapping, score=value / max(puzzle.counts.sum(), 1), spent=spent)
        if not self._judged or self.public.base is None:
            return found
        judge = Judge(self.public.base, texts, self._judged_tokens)
        frequency = unigram_counts(self._texts, self.plains)
        ranks = by_rank(unigram_counts(texts, self.ciphers), frequency, anchors, rng)
        # bigrams of public text of another kind lead astray, further than its ranks
        found = max(found, replace(found, mapping=ranks), key=lambda one: judge.likelihood(one.mapping))
        found = refined(found, puzzle, judge, capacity, self._judged)
        return judged(found, judge, Judge(self.public.base, self._texts, judge.tokens))

    def _start(
        self, puzzle: Puzzle, texts: Sequence[Ids], capacity: Soft, rng: np.random.Generator | None
    ) -> tuple[Ids, float]:
        """One start: the mapping ``[k]`` it ends in, and its log-likelihood."""
        first = self._first(puzzle, texts)
        if rng is not None:
            first *= rng.uniform(0.5, 1.5, (len(first), 1)).astype(np.float32)
        scores = anneal(puzzle, first, capacity, Cooling(steps=self._steps))
        return climb(puzzle, assigned(scores, capacity, puzzle.fixed), self._exchanges)

    def _first(self, puzzle: Puzzle, texts: Sequence[Ids]) -> Soft:
        """First scores ``[k, V]``: by signature, where there is enough of one, else by count."""
        comparison = SignatureComparison.learned(self._texts, self.plains, int(puzzle.counts.sum()))
        features = signatures(texts, self.ciphers)[puzzle.types]
        scores = _TRUST * comparison.scores(features, puzzle.counts)
        first: Soft = np.where(puzzle.counts[:, None] >= _CONTEXT, scores, puzzle.prior).astype(np.float32)
        return first


def capacities(plains: int) -> Soft:
    """How many cipher ids each plain id is taken to have ``[V]``: one, for which ids have homophones is not public."""
    return np.ones(plains, dtype=np.float32)
