"""Mahalanobis noise: d_chi's, stretched along the axes in which the table spreads (Xu et al., PrivateNLP 2020)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats
from smd_research.mechanisms.privacy.noise import standard_radial_noise
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.token_channel import metric_guarantee


def regularised_covariance(space: EmbeddingSpace, lam: float) -> Floats:
    """``lambda * S + (1 - lambda) * I`` with the covariance ``S`` of the private rows at mean variance one, ``[d, d]``.

    Raises:
        ConfigError: where all rows are equal.
    """
    covariance = np.cov(space.private_rows, rowvar=False).reshape(space.width, space.width)
    spread = float(np.trace(covariance)) / space.width
    if spread <= 0:
        raise ConfigError("mahalanobis noise needs rows that differ: this embedding table has equal ones")
    identity: Floats = np.eye(space.width)
    return lam * covariance / spread + (1.0 - lam) * identity


@dataclass(frozen=True, eq=False)
class MahalanobisChannel(NoisyNearestChannel):
    """Add ``radius * Sigma_lambda^(1/2) u`` to the token's row and emit the nearest private token.

    Epsilon is per unit of *Mahalanobis* distance, ``||Sigma_lambda^(-1/2) (x - x')||``: the noise is radial where the
    rows are whitened. The search stays Euclidean; it is post-processing.

    Attributes:
        lam: weight of the table's covariance against the identity, from 0 (d_chi) to below 1.
    """

    lam: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam < 1:
            raise ConfigError(f"lam={self.lam:g} is out of range: it is 0 or more, and below 1")

    def standard_noise(self, count: int, width: int, rng: np.random.Generator) -> Floats:
        noise: Floats = standard_radial_noise(count, width, rng) @ self._root
        return noise

    @cached_property
    def metric(self) -> EmbeddingSpace:
        """The whitened rows."""
        return EmbeddingSpace(self.whitened(self.space.rows), self.space.private_ids, "raw")

    def whitened(self, noise: Floats) -> Floats:
        values, axes = self._spectrum
        found: Floats = noise @ (axes / np.sqrt(values)) @ axes.T
        return found

    @cached_property
    def _root(self) -> Floats:
        values, axes = self._spectrum
        root: Floats = (axes * np.sqrt(values)) @ axes.T
        return root

    @cached_property
    def _spectrum(self) -> tuple[Floats, Floats]:
        values, axes = np.linalg.eigh(regularised_covariance(self.space, self.lam))
        return values, axes

    def guarantee(self) -> Guarantee:
        return metric_guarantee(
            self.metric,
            self.epsilon,
            verified="radius law and isotropy of the whitened noise, a distinguishing game on one pair",
            source="Xu et al., PrivateNLP 2020",
            metric=f"Mahalanobis distance of {self.space.scale} embedding rows at lambda={self.lam:g}",
            distance="Mahalanobis distance",
        )
