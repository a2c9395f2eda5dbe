"""A defense that serves in the clear and keeps the top components of every matrix back, for tests of the runner."""

from collections.abc import Mapping

from smd_research.boundary import Boundary
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.none import SHOWS, NoDefense, PlainDeployment
from smd_research.mechanisms.decomposition.splits import split
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of, with_weights


class Exposed(PlainDeployment):
    """The plain service; the untrusted party is said to hold the exposed part only."""

    def __init__(self, bundle: Bundle, boundary: Boundary, shows: frozenset[Observable], rank: int) -> None:
        super().__init__(bundle, boundary, shows)
        self.rank = rank

    @property
    def parameters(self) -> Mapping[str, object]:
        return {"ranks": dict.fromkeys(linear_layers(self.bundle), self.rank)}

    @property
    def public(self) -> Bundle:
        layers = linear_layers(self.bundle)
        kept = {n: split(weight_of(m), self.rank, "svd", generator(0, n)).exposed for n, m in layers.items()}
        return with_weights(self.bundle, kept)


class Exposing(NoDefense):
    """Its configuration; the rank tells its cells from those of no defense."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS | {Observable.EXPOSED_WEIGHTS}

    def deploy(self, bundle: Bundle, boundary: Boundary, seed: int = 0) -> Exposed:
        return Exposed(bundle, boundary, self.shows, self.rank)
