"""The attacker who tries everything: ids in clear, tables, known pairs, decipherment; the text that reads best wins.

Tables that agree decide, whatever the text is about. Else each way hands over a mapping, the public model as judge
improves it, so that rows that noise hid are filled in from their context, and reads the encoded text through each: what
reads as public text wins, and among these what is most likely. (Judged before it is improved, a deciphered text looks
better than one of the tables, for it was made to look like public text.)
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attacks.base import Ids, KnownPairs, MappingAttack, Public
from attacks.cryptanalysis.auxiliary import auxiliary_texts, check_auxiliary
from attacks.cryptanalysis.bigrams import BigramModel, Puzzle
from attacks.cryptanalysis.ciphertext import ciphertext, origin
from attacks.cryptanalysis.judging import Judge
from attacks.cryptanalysis.refining import judged, refined
from attacks.substitutions.decipherment import Decipherment, capacities
from attacks.substitutions.table_matching.attack import TableMatching
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError
from smd_research.core.guess import MappingGuess

WAYS = ("in_clear", "table_matching", "decipherment")
"""What may win, by its number in the metric ``won``; pairs that are told are held fixed in the last two."""

_TELLING = 0.6
"""Standing of a table match from which its surer half is right (tables that have nothing in common stay below 0.5)."""


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
        self._public = Judge(self._base, self._texts, self._judged_tokens)
        self._tables.fit(public)
        self._decipherment.fit(public)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """The best mapping of all, improved; one that is proved, in clear, or told by the tables ends it."""
        texts, anchors = ciphertext(views), self.anchors(known)
        judge = Judge(self._base, texts, self._judged_tokens)
        clear = self._in_clear(judge)
        if texts and clear.readable:
            return _won("in_clear", clear)
        tables = self._tables.solve(views, rng, known)
        if tables.certified:
            return _won("table_matching", tables)
        if (tables.score or 0) >= _TELLING:
            return _won("table_matching", self._filled(tables, texts, anchors, judge))
        found = {"in_clear": clear, "table_matching": tables}
        found["decipherment"] = deciphered = self._decipherment.solve(views, rng, known)
        for name in ("table_matching", "decipherment"):
            found[name] = self._improved(found[name], texts, anchors, judge)
        readings = {name: (guess.readable or False, judge.likelihood(guess.mapping)) for name, guess in found.items()}
        name = max(readings, key=readings.__getitem__)
        return _won(name, replace(found[name], spent=tables.spent + deciphered.spent + judge.spent))

    def _in_clear(self, judge: Judge) -> MappingGuess:
        """The text as it is."""
        ids = np.arange(self.ciphers)
        return judged(MappingGuess(np.where(ids < self.plains, ids, -1)), judge, self._public)

    def _filled(self, found: MappingGuess, texts: Sequence[Ids], anchors: KnownPairs, judge: Judge) -> MappingGuess:
        """A match of the tables, its surer half held fixed and the rest improved, where that reads as public text.

        Where it does not, the private text is of a kind that the public model does not know, and its judgement would
        spoil what the tables have told.
        """
        assert found.sure is not None
        counts = np.bincount(found.mapping, minlength=self.plains)
        sure = np.flatnonzero((found.sure >= np.median(found.sure)) & (counts[found.mapping] == 1))
        sure = np.setdiff1d(sure, anchors.cipher)
        sure = sure[~np.isin(found.mapping[sure], anchors.plain)]
        fixed = KnownPairs(np.append(anchors.cipher, sure), np.append(anchors.plain, found.mapping[sure]))
        filled = self._improved(found, texts, fixed, judge)
        return filled if filled.readable else replace(found, spent=filled.spent)

    def _improved(self, found: MappingGuess, texts: Sequence[Ids], anchors: KnownPairs, judge: Judge) -> MappingGuess:
        """A mapping after the judge's rounds, and how it reads then."""
        if not self._judged or not texts:
            return found
        model = BigramModel.of(self._texts, self.plains)
        puzzle = Puzzle.of(texts, model, anchors, self.ciphers, 3.0)
        improved = refined(found, puzzle, judge, capacities(self.plains), self._judged)
        return judged(improved, judge, self._public)


def _won(name: str, found: MappingGuess) -> MappingGuess:
    return replace(found, facts={**found.facts, "won": float(WAYS.index(name))})
