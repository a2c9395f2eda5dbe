"""What a record is about, told without decryption: a keyed text is as good a text to a classifier.

The key replaces equal words by equal words and keeps the geometry of the table, so a linear probe that is shown a few
labelled records learns from encoded ids what it would learn from plain ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attacks.base import AttributeAttack, Ids, Public
from smd_research.core.errors import ConfigError, NotApplicableError

FEATURES = ("ids", "embeddings", "both")
_PENALTIES = 10.0 ** np.arange(-2, 4)


class AttributeProbe(AttributeAttack):
    """A ridge classifier on encoded records; declared side knowledge: the attribute of a few of them.

    Args:
        known: records whose attribute it is told.
        features: ``ids`` (which cipher ids occur), ``embeddings`` (the mean of their shaken rows) or ``both``.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(self, known: int = 100, features: str = "both") -> None:
        if known < 2:
            raise ConfigError(f"attack.known={known} is out of range: a probe needs at least 2 labelled records")
        if features not in FEATURES:
            raise ConfigError(f"attack.features={features} is unknown: use one of {', '.join(FEATURES)}")
        self.known = known
        self._features = features

    def fit(self, public: Public) -> None:
        """Take in the shaken table."""
        super().fit(public)
        self._table = public.bundle.embedding.detach().cpu().double().numpy()

    def probe(self, records: Sequence[Ids], told: NDArray[np.int64]) -> NDArray[np.int64]:
        classes = np.unique(told[told >= 0])
        if len(classes) < 2:
            raise NotApplicableError("learns from labelled records: fewer than two attributes are among them")
        kernel = self._kernel(records)
        learned = np.flatnonzero(told >= 0)
        targets = np.where(told[learned, None] == classes, 1.0, -1.0)
        weights = _ridge(kernel[np.ix_(learned, learned)], targets)
        found = classes[(kernel[:, learned] @ weights).argmax(axis=1)]
        return np.where(told >= 0, told, found)

    def _kernel(self, records: Sequence[Ids]) -> NDArray[np.float64]:
        """Inner products of the records' features ``[n, n]``, each kind scaled to a mean of one on the diagonal."""
        counts = np.zeros((len(records), len(self._table)))
        rows = np.repeat(np.arange(len(records)), [len(record) for record in records])
        np.add.at(counts, (rows, np.concatenate([np.zeros(0, dtype=np.int64), *records])), 1)
        present = (counts > 0).astype(np.float64)
        rarity = np.log((1 + len(records)) / (1 + present.sum(axis=0)))
        means = counts @ self._table / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        kinds = {"ids": present * rarity, "embeddings": means}
        chosen = [kinds[name] for name in kinds if self._features in (name, "both")]
        kernel = np.ones((len(records), len(records)))
        for features in chosen:
            centred = features - features.mean(axis=0)
            gram = centred @ centred.T
            kernel += gram / max(float(np.diag(gram).mean()), 1e-30)
        return kernel


def _ridge(kernel: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dual weights ``[m, c]`` of ridge regression, its penalty chosen by leave-one-out accuracy."""
    values, vectors = np.linalg.eigh(kernel)
    best: tuple[float, NDArray[np.float64]] | None = None
    for penalty in _PENALTIES:
        inverse = (vectors / (np.maximum(values, 0) + penalty)) @ vectors.T
        weights = inverse @ targets
        left_out = targets - weights / np.diag(inverse)[:, None]
        right = float((left_out.argmax(axis=1) == targets.argmax(axis=1)).mean())
        if best is None or right > best[0]:
            best = (right, weights)
    assert best is not None
    return best[1]
