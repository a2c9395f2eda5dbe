"""Rows of the embedding table that moved in private tuning name the tokens that were used.

Who sees the weights before and after needs no message: a row that no text touched takes no gradient. How far a row
moved grows with how often it was used, so the rows can also be put in order of frequency.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attacks.base import KnownPairs, MappingAttack, Public
from attacks.cryptanalysis.auxiliary import auxiliary_texts, check_auxiliary
from attacks.cryptanalysis.bigrams import unigram_counts
from attacks.substitutions.rank_frequency import by_rank
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import MappingGuess, Spent
from smd_research.core.observable import Observable

_MOVED = 1e-3  # of the largest movement: below, a row was not used


class WeightDiff(MappingAttack):
    """Used cipher ids from the drift of the table, and their plain ids by rank.

    ``sure`` of the guess is 1 for a row that moved and 0 for one that did not.

    Args:
        auxiliary: public text to count: ``same`` (the data's own kind), ``reference`` (Python's manual) or ``model``
            (what the public model writes unprompted).
        auxiliary_tokens: how much of it, as far as it goes.

    Raises:
        ConfigError: for an option out of range.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS})

    def __init__(self, auxiliary: str = "same", auxiliary_tokens: int = 200_000) -> None:
        check_auxiliary(auxiliary, auxiliary_tokens)
        self._auxiliary = auxiliary
        self._tokens = auxiliary_tokens

    def fit(self, public: Public) -> None:
        """Compare the table before and after tuning.

        Raises:
            NotApplicableError: when the model was not tuned, or its table did not move.
        """
        super().fit(public)
        if public.before is None:
            raise NotApplicableError("compares weights before and after private tuning: this model was not tuned")
        self._movement = movement(public)
        if not self._movement.max(initial=0) > 0:
            raise NotApplicableError("looks for rows that moved in tuning: the embedding table was frozen")
        texts = auxiliary_texts(public, self._auxiliary, self._tokens)
        self._frequency = unigram_counts(texts, self.plains)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Name the rows that moved; reads no message."""
        moved = self._movement > _MOVED * self._movement.max()
        mapping = by_rank(np.where(moved, self._movement, 0), self._frequency, self.anchors(known), rng)
        return MappingGuess(
            mapping,
            sure=moved.astype(np.float64),
            spent=Spent(candidates=len(moved)),
            facts={"rows_moved": float(moved.mean())},
        )


def movement(public: Public) -> NDArray[np.float64]:
    """How far each row of the input table moved ``[V']``, the common shrinking by weight decay taken off."""
    assert public.before is not None
    before = public.before.embedding.detach().cpu().double().numpy()
    after = public.bundle.embedding.detach().cpu().double().numpy()
    power = np.maximum((before * before).sum(axis=1), 1e-30)
    shrunk = np.median((before * after).sum(axis=1) / power)
    moved = np.linalg.norm(after - shrunk * before, axis=1)
    floor = np.finfo(np.float32).eps * np.sqrt(power)
    found: NDArray[np.float64] = np.where(moved > 4 * floor, moved, 0.0)
    return found
