"""RANTEXT, the mechanism of InferDPT: outputs from a random list around the token (Tong et al., arXiv 2310.12214).

A heuristic: the list depends on the token, so that outputs of one are impossible for another.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guarantee import Guarantee
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.token_channel import FiniteChannel, scatter

_LARGEST = 8192  # tokens for whose every pair and radius a weight is computed
_RADII = 32
_POOL = 1 << 13


def released_divisor(epsilon: float) -> float:
    """What the released code divides a dimension's range by: epsilon below 2, from there on a curve that hardly moves.

    At 2 the scale falls to about a fifth.

    Raises:
        ConfigError: at epsilon 2 itself, where the curve has no value.
    """
    if epsilon < 2:
        return epsilon
    inside = 19.0647 * epsilon - 38.1294
    divisor = 0.01658 * math.log(inside) + 9.3111 if inside > 1e-9 else 0.0
    if divisor <= 0:
        raise ConfigError(f"rantext's calibration has no value at epsilon={epsilon:g}: choose another, 2.1 for example")
    return divisor


def laplace_scales(space: EmbeddingSpace, epsilon: float) -> Floats:
    """Scale of the Laplace noise in each dimension as the released code calibrates it, ``[d]``."""
    ranges: Floats = space.private_rows.max(axis=0) - space.private_rows.min(axis=0)
    return ranges / released_divisor(epsilon)


class RandomListChannel(FiniteChannel):
    """Draw a radius, the norm of Laplace noise; among tokens nearer than that, favour near ones.

    ``log p(y|x, r) = epsilon/2 * (1 - d(x, y)/r)`` for ``d < r``. Draws are exact. The probabilities are means over 32
    evenly placed quantiles of the radius, for whose law there is no closed form: an output that takes a rarer radius
    counts as impossible.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        released_divisor(self.epsilon)

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised = array.copy()
        private = np.flatnonzero(self.space.is_private[array])
        radii, uniforms = _norms(self._scales, len(private), rng), rng.random(len(private))
        for part in self.space.chunks(len(private)):
            cumulative = self._weights(self.space.distances(array[private[part]]), radii[part, None])
            np.cumsum(cumulative, axis=1, out=cumulative)
            reached = cumulative > (uniforms[part] * cumulative[:, -1])[:, None]
            sanitised[private[part]] = self.space.private_ids[np.argmax(reached, axis=1)]
        return sanitised

    def lists(self, ids: Ids, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """A draw of the list of each private token, over the private tokens ``[n, P]``."""
        listed: npt.NDArray[np.bool_] = self.space.distances(ids) < _norms(self._scales, len(ids), rng)[:, None]
        return listed

    def survival(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        return np.exp(self.log_prob(array)[np.arange(len(array)), array])

    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        distances = self.space.distances(array)
        law = np.zeros_like(distances)
        for radius in self.radii:
            weights = self._weights(distances, radius)
            # of a public token no private one may be near, and its row is not read
            law += weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        with np.errstate(divide="ignore"):
            return scatter(self.space, array, np.log(law / len(self.radii)))

    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        array = self.space.check(observed)
        distances, totals = self.space.distances(array), self._totals
        law = np.zeros_like(distances)
        for index, radius in enumerate(self.radii):
            law += self._weights(distances, radius) / totals[:, index]
        with np.errstate(divide="ignore"):
            return scatter(self.space, array, np.log(law / len(self.radii)))

    def guarantee(self) -> Guarantee:
        return Guarantee(
            notion="heuristic",
            unit="token",
            epsilon=self.epsilon,
            composition="no bound: the lists of two tokens differ, and an output outside one of them tells them apart",
            unit_epsilon=None,
            support="a random list around the input, hardly random where there are many dimensions",
            assumptions="public embedding table and vocabulary; radius as the released code calibrates it",
            verified="a distinguishing game on one pair, lists compared over pairs (mechanisms.channel_audit)",
            source="RANTEXT of InferDPT, Tong et al., arXiv 2310.12214",
        )

    @cached_property
    def radii(self) -> Floats:
        """Quantiles of the radius at the middle of equal shares, from public draws, ``[R]``."""
        pool = _norms(self._scales, _POOL, generator(0, "rantext radii"))
        found: Floats = np.quantile(pool, (np.arange(_RADII) + 0.5) / _RADII)
        return found

    @cached_property
    def _scales(self) -> Floats:
        return laplace_scales(self.space, self.epsilon)

    @cached_property
    def _totals(self) -> Floats:
        """Sums of weights of every private input at each radius, ``[P, R]``.

        Raises:
            NotApplicableError: when there are too many tokens.
        """
        private = self.space.private_ids
        if len(private) > _LARGEST:
            raise NotApplicableError(
                f"rantext has no closed form and {len(private)} tokens are too many to average over its lists (limit "
                f"{_LARGEST}); attack it with mode=nearest, or defend with mechanism=santext"
            )
        totals = np.empty((len(private), len(self.radii)))
        for part in _few(len(private)):
            distances = self.space.distances(private[part])
            for index, radius in enumerate(self.radii):
                totals[part, index] = self._weights(distances, radius).sum(axis=1)
        return totals

    def _weights(self, distances: Floats, radius: Floats | float) -> Floats:
        """``exp(epsilon/2 * (1 - d/r))`` within the list, else 0."""
        weights: Floats = np.exp(distances * (-0.5 * self.epsilon / radius) + 0.5 * self.epsilon)
        weights *= distances < radius
        return weights


def _norms(scales: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Norms of ``count`` vectors of Laplace noise, ``[count]``; a few thousand vectors at a time."""
    norms = np.empty(count)
    for start in range(0, count, _POOL):
        size = min(_POOL, count - start)
        norms[start : start + size] = np.linalg.norm(rng.laplace(size=(size, len(scales))) * scales, axis=1)
    return norms


def _few(n: int, step: int = 64) -> Iterator[slice]:
    """Blocks of rows that stay in the processor's cache while every radius is tried."""
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))
