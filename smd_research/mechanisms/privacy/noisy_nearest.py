"""d_chi privacy: noise on the embedding, then the nearest token (Feyisetan et al., WSDM 2020, Algorithm 1)."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smd_research.core.guarantee import Guarantee
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.noise import standard_radial_noise
from smd_research.mechanisms.privacy.token_channel import TokenChannel, metric_guarantee

_SURVIVAL_DRAWS = 256


class NoisyNearestChannel(TokenChannel):
    """Add radial noise to the token's row and emit the nearest private token, by exact Euclidean search.

    The vector is ``epsilon * d``-private; the search is post-processing. The probabilities have no closed form: an
    attacker that needs them uses :func:`~smd_research.mechanisms.privacy.channel_estimate.estimate_channel`.
    """

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised = array.copy()
        private = np.flatnonzero(self.space.is_private[array])
        sanitised[private] = self.space.nearest(self.space.rows[array[private]] + self.noise(len(private), rng))
        return sanitised

    def noise(self, count: int, rng: np.random.Generator) -> Floats:
        """What is added to rows, ``[count, width]``."""
        return self.standard_noise(count, self.space.width, rng) / self.epsilon

    def standard_noise(self, count: int, width: int, rng: np.random.Generator) -> Floats:
        """Noise at epsilon one, ``[count, width]``; any other epsilon divides it."""
        return standard_radial_noise(count, width, rng)

    def whitened(self, noise: Floats) -> Floats:
        """Noise ``[count, width]`` as the mechanism's metric measures it, where it has to be radial."""
        return noise

    def survival(self, ids: npt.ArrayLike) -> Floats:
        """Monte-Carlo estimate from 256 fixed draws a token (standard error at most 0.032 each)."""
        array = self.space.check(ids)
        share = np.ones(len(array))
        rng = generator(0, "d_chi survival")
        for position in np.flatnonzero(self.space.is_private[array]):
            thresholds = critical_scales(
                self.space, array[position : position + 1], _SURVIVAL_DRAWS, rng, self.standard_noise
            )
            share[position] = float((thresholds <= self.epsilon).mean())
        return share

    def guarantee(self) -> Guarantee:
        return metric_guarantee(
            self.space,
            self.epsilon,
            verified="radius law and isotropy of the noise, Monte-Carlo worst-pair bound (mechanisms.audit)",
            source="d_chi privacy (MADLIB), Feyisetan et al., WSDM 2020",
        )


StandardNoise = Callable[[int, int, np.random.Generator], Floats]


def critical_scales(
    space: EmbeddingSpace, ids: Ids, draws: int, rng: np.random.Generator, noise: StandardNoise = standard_radial_noise
) -> Floats:
    """For each private token and noise draw, the smallest factor by which the noise has to shrink for it to survive.

    With ``z`` drawn at scale one, token ``x`` moves to ``x + z/s`` and stays the nearest exactly when
    ``s >= max_y 2 z.(y - x) / ||y - x||^2``: one draw answers for every scale. For radial noise ``s`` is epsilon.

    Args:
        space: the metric space.
        ids: ``[n]`` private tokens.
        draws: noise vectors for each token.
        rng: source of randomness.
        noise: draws ``[count, width]`` at scale one.

    Returns:
        ``[n, draws]``; infinite where another token has the same row and a lower id.
    """
    found = np.empty((len(ids), draws))
    for index, token in enumerate(ids):
        drawn = noise(draws, space.width, rng)
        offsets = space.private_rows - space.rows[token]
        squared = space.distances([token])[0] ** 2
        twin = squared <= 1e-24 * max(1.0, float(squared.max()))
        ratios = 2.0 * (drawn @ offsets[~twin].T) / squared[~twin]
        loses_tie = bool(space.private_ids[twin].min() < token)
        found[index] = np.inf if loses_tie else np.maximum(ratios.max(axis=1), 0.0)
    return found
