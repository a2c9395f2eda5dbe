"""A defense that serves in the clear and keeps the top components of every matrix back, for tests of the runner."""

from dataclasses import replace
from pathlib import Path

from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, PublicText
from smd_research.defenses.none import SHOWS, NoDefense, PlainPrepared
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.mechanisms.decomposition.splits import split
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of, with_weights


class Exposing(NoDefense):
    """The plain service; the untrusted party is said to hold the exposed part only."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS | {Observable.EXPOSED_WEIGHTS}

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> PlainPrepared:
        layers = linear_layers(bundle)
        kept = {n: split(weight_of(m), self.rank, "svd", generator(0, n)).exposed for n, m in layers.items()}
        secret = SecretParts((), dict.fromkeys(layers, self.rank))
        return replace(
            super().prepare(bundle, public_text, seed),
            public=with_weights(bundle, kept),
            base=None,
            parameters=(secret,),
        )
