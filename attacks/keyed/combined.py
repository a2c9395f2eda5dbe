"""The attacker who tries everything: ids in clear, tables, known pairs, decipherment; the text that reads best wins.

Each way hands over a mapping. The public model reads the encoded text through each of them, and the one under which
it is most likely is improved by the same judge, so that rows that noise hid are filled in from their context.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from attacks.base import Public
from attacks.keyed.auxiliary import auxiliary_texts, check_auxiliary
from attacks.keyed.bigrams import BigramModel, Puzzle
from attacks.keyed.decipherment import Decipherment, capacities
from attacks.keyed.judging import Judge
from attacks.keyed.mapping import KnownPairs, MappingAttack, ciphertext, origin
from attacks.keyed.refining import certificate, refined
from attacks.keyed.table_matching import TableMatching
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError
from smd_research.core.guess import MappingGuess, Spent

WAYS = ("in_clear", "table_matching", "decipherment")
"""What may win, by its number in the metric ``won``; pairs that are told are held fixed in the last two."""


class Combined(MappingAttack):
    """The text as it is, table matching and decipherment, judged and refined by the public body.

    Args:
        known: pairs that it is told beside the special ids.
        auxiliary: public text to count: ``same`` (the data's own kind), ``reference`` (Python's manual) or ``model``
            (what the public model writes unprompted).
        auxiliary_tokens: how much of it, as far as it goes.
        rounds: fits at most from each seed of table matching.
        judged: rounds in which the winner is improved; 0: it stays as it is.
        judged_tokens: how much of the encoded text is read in each.

    Raises:
        ConfigError: for an option out of range.
    """

    version = 2

    def __init__(
        self,
        known: int = 0,
        auxiliary: str = "same",
        auxiliary_tokens: int = 200_000,
        rounds: int = 20,
        judged: int = 4,
        judged_tokens: int = 10_000,
    ) -> None:
        check_auxiliary(auxiliary, auxiliary_tokens)
        if known < 0 or judged < 0 or judged_tokens < 1:
            raise ConfigError("combined needs attack.known and judged >= 0, judged_tokens >= 1")
        self.known = known
        self._auxiliary, self._auxiliary_tokens = auxiliary, auxiliary_tokens
        self._judged, self._judged_tokens = judged, judged_tokens
        self._tables = TableMatching(rounds=rounds)
        self._decipherment = Decipherment(auxiliary, auxiliary_tokens, judged=0)

    def fit(self, public: Public) -> None:
        """Fit those that can be run here.

        Raises:
            NotApplicableError: when no public model is known.
        """
        super().fit(public)
        self._base = origin(public)
        self._texts = auxiliary_texts(public, self._auxiliary, self._auxiliary_tokens)
        self._tables.fit(public)
        self._decipherment.fit(public)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """The best mapping of all, improved; one that proves itself ends the search."""
        texts, anchors = ciphertext(views), self.anchors(known)
        judge = Judge(self._base, texts, self._judged_tokens)
        found: dict[str, MappingGuess] = {}
        for name, solve in self._ways(views, rng, known, judge):
            found[name] = solve()
            if found[name].certified:
                return replace(found[name], facts={**found[name].facts, "won": float(WAYS.index(name))})
        readings = {name: judge.likelihood(guess.mapping) for name, guess in found.items()}
        name = max(readings, key=readings.__getitem__)
        spent = sum((guess.spent for guess in found.values()), Spent())
        best = replace(found[name], spent=spent, facts={"won": float(WAYS.index(name))})
        if not self._judged or not texts:
            return best
        model = BigramModel.of(self._texts, self.plains)
        puzzle = Puzzle.of(texts, model, anchors, self.ciphers, 3.0)
        improved = refined(best, puzzle, judge, capacities(self.public, self.plains), self._judged)
        return certificate(improved, judge, self._base, self._texts)

    def _ways(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None, judge: Judge
    ) -> Iterator[tuple[str, Callable[[], MappingGuess]]]:
        """Every way by name, the cheapest first."""
        ids = np.arange(self.ciphers)
        as_it_is = MappingGuess(np.where(ids < self.plains, ids, -1))
        ways = (
            lambda: certificate(as_it_is, judge, self._base, self._texts),
            lambda: self._tables.solve(views, rng, known),
            lambda: self._decipherment.solve(views, rng, known),
        )
        yield from zip(WAYS, ways, strict=True)
