"""The attacker who tries everything: tables, known pairs, decipherment; the text that reads best wins.

Each attack hands over a mapping. The public model reads the encoded text through each of them, and the one under which
it is most likely is improved by the same judge, so that rows that noise hid are filled in from their context.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attacks.base import Public
from attacks.keyed.auxiliary import auxiliary_texts, check_auxiliary
from attacks.keyed.bigrams import BigramModel, Puzzle
from attacks.keyed.decipherment import Decipherment, capacities
from attacks.keyed.judging import Judge
from attacks.keyed.known_plaintext import KnownPlaintext
from attacks.keyed.mapping import KnownPairs, MappingAttack, ciphertext, origin
from attacks.keyed.refining import certificate, refined
from attacks.keyed.table_matching import TableMatching
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError
from smd_research.core.guess import MappingGuess, Spent


class Combined(MappingAttack):
    """Table matching, known plaintext and decipherment, judged and refined by the public body.

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
        self._members: dict[str, MappingAttack] = {
            "table_matching": TableMatching(rounds=rounds),
            "known_plaintext": KnownPlaintext(known, rounds),
            "decipherment": Decipherment(auxiliary, auxiliary_tokens, judged=0),
        }

    def fit(self, public: Public) -> None:
        """Fit those that can be run here.

        Raises:
            NotApplicableError: when no public model is known.
        """
        super().fit(public)
        self._base = origin(public)
        self._texts = auxiliary_texts(public, self._auxiliary, self._auxiliary_tokens)
        for attack in self._members.values():
            attack.fit(public)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """The best mapping of all, improved; a table match that proves itself ends the search."""
        texts, anchors = ciphertext(views), self.anchors(known)
        judge = Judge(self._base, texts, self._judged_tokens)
        found: dict[str, MappingGuess] = {}
        for name, attack in self._members.items():
            if name == "known_plaintext" and len(anchors.cipher) < 2:
                continue
            found[name] = attack.solve(views, rng, known)
            if found[name].certified:
                return replace(found[name], facts={**found[name].facts, "won": float(list(self._members).index(name))})
        readings = {name: judge.likelihood(guess.mapping) for name, guess in found.items()}
        name = max(readings, key=readings.__getitem__)
        spent = sum((guess.spent for guess in found.values()), Spent())
        best = replace(found[name], spent=spent, facts={"won": float(list(self._members).index(name))})
        if not self._judged or not texts:
            return best
        model = BigramModel.of(self._texts, self.plains)
        puzzle = Puzzle.of(texts, model, anchors, self.ciphers, 3.0)
        improved = refined(best, puzzle, judge, capacities(self.public, self.plains), self._judged)
        return certificate(improved, judge, self._base, self._texts)
