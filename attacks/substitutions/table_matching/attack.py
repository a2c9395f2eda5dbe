"""Match the shaken table to the public one: the cloud always holds both (``mechanisms.embedding_matching``)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from attacks.base import KnownPairs, MappingAttack, Public
from attacks.substitutions.table_matching.tables import TablePair, table_pairs
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError
from smd_research.core.guess import MappingGuess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.embedding_matching.table_matching import METHODS, RowPairs, TableMatch, match_tables

HEADS = ("auto", "input", "head")


class TableMatching(MappingAttack):
    """Recovers the substitution from the tables alone; reads no message.

    Args:
        method: ``zscore``, ``rotation``, ``whitened`` or ``auto``.
        table: ``input``, ``head``, or ``auto``: both where the cloud holds a head of its own; the one that stands out
            more wins.
        rounds: fits at most from each seed.

    Raises:
        ConfigError: for an option out of range.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS})

    def __init__(self, method: str = "auto", table: str = "auto", rounds: int = 20) -> None:
        if method not in METHODS:
            raise ConfigError(f"attack.method={method} is unknown: use one of {', '.join(METHODS)}")
        if table not in HEADS:
            raise ConfigError(f"attack.table={table} is unknown: use one of {', '.join(HEADS)}")
        if rounds < 1:
            raise ConfigError(f"attack.rounds={rounds} is out of range: give at least 1")
        self._method = method
        self._table = table
        self._rounds = rounds

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: when no public model is known, or the table asked for is not held.
        """
        super().fit(public)
        self._pairs = table_pairs(public)

    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Match every table held; nothing here depends on the views or on chance."""
        anchors = self.anchors(known)
        found = [(pair, self._match(pair, anchors)) for pair in self._pairs if self._table in ("auto", pair.name)]
        pair, best = max(found, key=lambda one: one[1].standing)
        return guess_of(best, head=pair.name == "head", candidates=sum(one[0].public.shape[0] for one in found))

    def _match(self, pair: TablePair, anchors: KnownPairs) -> TableMatch:
        return match_tables(
            pair.public, pair.shaken, self._method, RowPairs(anchors.cipher, anchors.plain), self._rounds
        )


def guess_of(match: TableMatch, head: bool, candidates: int) -> MappingGuess:
    """A table match as a guess; its certificate is that nothing but rounding is left."""
    return MappingGuess(
        match.mapping,
        score=match.standing,
        sure=match.sure,
        certified=match.exact,
        residual=match.residual,
        spent=Spent(candidates=candidates, steps=match.rounds),
        facts={"matched_head": float(head), "match_margin": match.margin},
    )
