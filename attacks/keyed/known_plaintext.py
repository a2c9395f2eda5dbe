"""Known plaintext: the plain ids of a few cipher ids open the rest of the table.

Planted documents, public templates and unmoved special tokens give pairs. A rotation of a table keeps each row's place
relative to the known ones, so the pairs name their neighbours, and those the whole map.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from attacks.base import Public
from attacks.keyed.mapping import KnownPairs, MappingAttack
from attacks.keyed.table_matching import guess_of
from attacks.keyed.tables import table_pairs
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import MappingGuess
from smd_research.core.observable import Observable
from smd_research.mechanisms.table_matching import Pairs, match_from_pairs


class KnownPlaintext(MappingAttack):
    """Procrustes from the known pairs, then least squares on what they led to.

    Args:
        known: pairs that it is told beside the special ids: those of the most frequent tokens of public text.
        rounds: fits at most with each kind of map.

    Raises:
        ConfigError: for an option out of range.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS})

    def __init__(self, known: int = 30, rounds: int = 20) -> None:
        if known < 0 or rounds < 1:
            raise ConfigError("known_plaintext needs attack.known >= 0 and attack.rounds >= 1")
        self.known = known
        self._rounds = rounds

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: when no public model is known.
        """
        super().fit(public)
        self._tables = table_pairs(public)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Spread what is known over every table held; reads no message.

        Raises:
            NotApplicableError: when fewer than two pairs are known.
        """
        anchors = self.anchors(known)
        if len(anchors.cipher) < 2:
            raise NotApplicableError("needs two known pairs at least: there are no special ids, and it was told none")
        pairs = Pairs(anchors.cipher, anchors.plain)
        found = [(one, match_from_pairs(one.public, one.shaken, pairs, self._rounds)) for one in self._tables]
        table, best = max(found, key=lambda one: one[1].standing)
        return guess_of(best, head=table.name == "head", candidates=sum(len(one[0].public) for one in found))
