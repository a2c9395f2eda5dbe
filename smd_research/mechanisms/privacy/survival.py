"""Choosing epsilon by the share of tokens that survive, on public token frequencies.

Word-level mechanisms pass from "nothing survives" to "everything survives" within a narrow band of epsilon that depends
on the embedding table; a grid chosen by eye usually lies wholly on one side. The share of unchanged tokens places it.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.customised_sets import CustomisedChannel, similarities
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.gaussian import gaussian_epsilon
from smd_research.mechanisms.privacy.mahalanobis import MahalanobisChannel
from smd_research.mechanisms.privacy.noise import standard_radial_noise
from smd_research.mechanisms.privacy.noisy_nearest import StandardNoise, critical_scales
from smd_research.mechanisms.privacy.normalisers import log_sums
from smd_research.mechanisms.privacy.truncated_exponential import truncation

_ROWS = 64  # of distances held twice
# Six points from nearly nothing to nearly everything.
SURVIVAL_SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90)


def token_frequencies(corpus: Iterable[Sequence[int]], vocab_size: int) -> Floats:
    """Token counts of a *public* corpus, ``[V]``; never pass the prompts under evaluation."""
    counts = np.zeros(vocab_size)
    for ids in corpus:
        counts += np.bincount(np.asarray(ids, dtype=np.int64), minlength=vocab_size)
    return counts


def representatives(space: EmbeddingSpace, weights: npt.ArrayLike, limit: int) -> tuple[Ids, Floats]:
    """At most ``limit`` private tokens that stand for the weighted vocabulary, and their weights, summing to one.

    All tokens with weight when they are few enough; else a systematic sample with probability proportional to weight.

    Raises:
        ConfigError: when no private token has weight.
    """
    private_weights = np.asarray(weights, dtype=np.float64)[space.private_ids]
    if private_weights.min() < 0 or private_weights.sum() <= 0:
        raise ConfigError("token weights must be non-negative, with some weight on tokens that are noised")
    used = np.flatnonzero(private_weights)
    if len(used) <= limit:
        return space.private_ids[used], private_weights[used] / private_weights.sum()
    cumulative = np.cumsum(private_weights)
    marks = (np.arange(limit) + 0.5) / limit * cumulative[-1]
    picked, times = np.unique(np.searchsorted(cumulative, marks, side="right"), return_counts=True)
    return space.private_ids[picked], times / limit


def exponential_survival(distances: Floats, weights: Floats, epsilon: float) -> float:
    """Weighted mean of ``P(y = x)`` under the exponential mechanism.

    Args:
        distances: ``[n, P]`` from each weighted token to every possible output; each row holds its own zero.
        weights: ``[n]``, summing to one.
        epsilon: privacy parameter.
    """
    return _mean_survival(distances, weights, lambda rows: -0.5 * epsilon * rows)


def epsilon_for_survival(distances: Floats, shares: Sequence[float], weights: Floats) -> tuple[float, ...]:
    """The epsilons of the exponential mechanism at which these shares of tokens survive.

    Args:
        distances: ``[n, P]``, as in :func:`exponential_survival`.
        shares: each between the share at epsilon 0 (about ``1/P``) and 1.
        weights: ``[n]`` public token frequencies, summing to one.

    Raises:
        ConfigError: when no epsilon reaches a share.
    """
    return tuple(_solve(lambda epsilon: exponential_survival(distances, weights, epsilon), s) for s in shares)


def santext_epsilons(
    space: EmbeddingSpace, frequencies: npt.ArrayLike, shares: Sequence[float] = SURVIVAL_SHARES, limit: int = 512
) -> tuple[float, ...]:
    """Epsilons of :class:`~smd_research.mechanisms.privacy.token_channel.ExponentialChannel` for these survival shares.

    Args:
        space: the metric space.
        frequencies: ``[V]`` counts of a public corpus (:func:`token_frequencies`).
        shares: wanted shares of private tokens that pass unchanged.
        limit: tokens that stand for the vocabulary.
    """
    ids, weights = representatives(space, frequencies, limit)
    return epsilon_for_survival(space.distances(ids), shares, weights)


def dchi_epsilons(
    space: EmbeddingSpace,
    frequencies: npt.ArrayLike,
    shares: Sequence[float] = SURVIVAL_SHARES,
) -> tuple[float, ...]:
    """Epsilons of ``NoisyNearestChannel`` for these survival shares."""
    return _scales(space, frequencies, shares, standard_radial_noise)


def mahalanobis_epsilons(
    space: EmbeddingSpace, frequencies: npt.ArrayLike, lam: float, shares: Sequence[float] = SURVIVAL_SHARES
) -> tuple[float, ...]:
    """Epsilons of ``MahalanobisChannel`` for these survival shares."""
    return _scales(space, frequencies, shares, MahalanobisChannel(space, 1.0, lam).standard_noise)


def tem_epsilons(
    space: EmbeddingSpace,
    frequencies: npt.ArrayLike,
    beta: float,
    shares: Sequence[float] = SURVIVAL_SHARES,
    limit: int = 512,
) -> tuple[float, ...]:
    """Epsilons of ``TruncatedExponentialChannel`` for these survival shares, each below ``1 - beta``."""
    ids, weights = representatives(space, frequencies, limit)
    distances = space.distances(ids)

    def survival(epsilon: float) -> float:
        if epsilon <= 0:
            return 1.0 / len(space.private_ids)
        cut = truncation(epsilon, len(space.private_ids), beta)
        return _mean_survival(distances, weights, lambda rows: -0.5 * epsilon * np.minimum(rows, cut))

    return tuple(_solve(survival, share) for share in shares)


def santext_plus_epsilons(
    space: EmbeddingSpace,
    frequencies: npt.ArrayLike,
    sensitive_ids: Ids,
    resampled: float,
    shares: Sequence[float] = SURVIVAL_SHARES,
    limit: int = 512,
) -> tuple[float, ...]:
    """Epsilons of ``SensitiveWordsChannel`` for these survival shares.

    Raises:
        ConfigError: for a share that no epsilon reaches, with what is within reach: words that are not sensitive pass
            or do not whatever it is.
    """
    ids, weights = representatives(space, frequencies, limit)
    outputs = EmbeddingSpace(space.rows, sensitive_ids, space.scale)
    sensitive = outputs.is_private[ids]
    passing, weight = float(weights[~sensitive].sum()) * (1.0 - resampled), float(weights[sensitive].sum())
    for share in shares:
        check_share(share)
        if not passing < share < passing + weight:
            raise ConfigError(
                f"santext_plus cannot let a share of {share:g} survive: on public text it lies between {passing:.3g} "
                f"and {passing + weight:.3g} (sensitive_share and resampled move both); give epsilon, or another share"
            )
    return epsilon_for_survival(
        outputs.distances(ids[sensitive]), [(share - passing) / weight for share in shares], weights[sensitive] / weight
    )


def custext_epsilons(
    channel: CustomisedChannel,
    frequencies: npt.ArrayLike,
    shares: Sequence[float] = SURVIVAL_SHARES,
    limit: int = 512,
) -> tuple[float, ...]:
    """Epsilons at which these shares survive in the sets of a channel, each above about ``1/K``."""
    ids, weights = representatives(channel.space, frequencies, limit)
    similar = similarities(channel.space, ids, channel.members(ids))
    similar -= 1.0  # of the token itself, whose similarity is the largest

    def survival(epsilon: float) -> float:
        half = 0.5 * max(epsilon, 1e-12)  # zero times what is no member would be no number
        return _mean_survival(similar, weights, lambda rows: half * rows)

    return tuple(_solve(survival, share) for share in shares)


def gaussian_epsilons(
    space: EmbeddingSpace,
    frequencies: npt.ArrayLike,
    delta: float,
    sensitivity: float,
    shares: Sequence[float] = SURVIVAL_SHARES,
) -> tuple[float, ...]:
    """Epsilons of Gaussian noise on embedding rows at which the nearest row is still the token's own.

    Args:
        space: the clipped rows, scale ``"raw"``.
        frequencies: ``[V]`` counts of a public corpus.
        delta: of one release.
        sensitivity: ``2C``.
        shares: wanted shares of private tokens whose nearest row is their own.
    """
    scales = _scales(space, frequencies, shares, _standard_gaussian)
    return tuple(gaussian_epsilon(1.0 / scale, delta, sensitivity) for scale in scales)


def _standard_gaussian(count: int, width: int, rng: np.random.Generator) -> Floats:
    return rng.standard_normal((count, width))


def _scales(
    space: EmbeddingSpace, frequencies: npt.ArrayLike, shares: Sequence[float], noise: StandardNoise
) -> tuple[float, ...]:
    """Inverse noise scales at which these shares survive.

    Every noise draw has one scale from which on its token survives, so the answer is a weighted quantile of those; the
    draws are fixed, and about 0.008 is the standard error in the share.
    """
    limit, draws = 256, 16
    ids, weights = representatives(space, frequencies, limit)
    thresholds = critical_scales(space, ids, draws, generator(0, "survival scales"), noise)
    order = np.argsort(thresholds, axis=None)
    reached = np.cumsum(np.repeat(weights / draws, draws)[order])
    ascending = thresholds.reshape(-1)[order]
    found = []
    for share in shares:
        check_share(share)
        index = int(np.searchsorted(reached, share))
        if index >= len(ascending) or not 0 < ascending[index] < np.inf:
            raise _unreachable(share)
        found.append(float(ascending[index]))
    return tuple(found)


def _mean_survival(rows: Floats, weights: Floats, scores: Callable[[Floats], Floats]) -> float:
    """Weighted mean of ``P(y = x)``, where a token's own score is 0."""
    shares = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        shares[start : start + _ROWS] = np.exp(-log_sums(scores(rows[start : start + _ROWS])))
    return float(weights @ shares)


def _solve(survival: Callable[[float], float], share: float) -> float:
    check_share(share)
    high = 1.0
    while survival(high) < share:
        high *= 2
        if high > 1e9:
            raise _unreachable(share)
    if survival(0.0) >= share:
        raise _unreachable(share)
    return float(brentq(lambda epsilon: survival(epsilon) - share, 0.0, high, rtol=1e-9))


def check_share(share: float, name: str = "a survival share") -> None:
    """Refuse what is no share.

    Args:
        share: of tokens that survive.
        name: what the user calls it.

    Raises:
        ConfigError: unless it lies between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"{name}={share:g} is out of range: it lies between 0 and 1")


def _unreachable(share: float) -> ConfigError:
    return ConfigError(
        f"no epsilon lets a share of {share:g} survive on this embedding table: it has too few or equal rows"
    )
