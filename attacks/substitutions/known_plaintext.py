"""Known plaintext: the plain ids of a few cipher ids open the rest of the table.

Planted documents, public templates and unmoved special tokens give pairs. A rotation of a table keeps each row's place
relative to the known ones, so the pairs name their neighbours, and those the whole map. Where noise hides that, pairs
are still fixed points of a match from the tables alone: who is told more never finds less.
"""

from collections.abc import Sequence

import numpy as np

from attacks.base import KnownPairs
from attacks.substitutions.table_matching.attack import TableMatching
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import MappingGuess


class KnownPlaintext(TableMatching):
    """Table matching that starts from the known pairs and holds them fixed, whatever else it starts from.

    Args:
        known: pairs that it is told beside the special ids: those of the most frequent tokens of public text.
        rounds: fits at most from each seed with each kind of map.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(self, known: int = 30, rounds: int = 20) -> None:
        if known < 0 or rounds < 1:
            raise ConfigError("known_plaintext needs attack.known >= 0 and attack.rounds >= 1")
        super().__init__(rounds=rounds)
        self.known = known

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Spread what is known over every table held; reads no message.

        Raises:
            NotApplicableError: when fewer than two pairs are known.
        """
        if len(self.anchors(known).cipher) < 2:
            raise NotApplicableError("needs two known pairs at least: there are no special ids, and it was told none")
        return super().solve(views, rng, known)
