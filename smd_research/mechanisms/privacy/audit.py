"""Audits that may refute a mechanism's promise: exact where the law is known, statistical where only samples are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import beta, chi2, chisquare, gamma, kstest

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.token_channel import FiniteChannel, TokenChannel


@dataclass(frozen=True)
class LogRatioAudit:
    """Outcome of comparing every pair of rows of a probability matrix with ``epsilon * distance``.

    Attributes:
        pairs: pairs of inputs compared.
        worst_excess: largest ``max_y |log p(y|x) - log p(y|x')| - epsilon * d(x, x')``; not above zero when the promise
            holds.
        tightest: largest ratio of the two sides: 1 means that the bound is reached.
        worst_pair: the inputs of the largest excess.
        same_support: every private input reaches exactly the same outputs.
        worst_mass: largest deviation of a row's total probability from one.
        slack: rounding error granted.
    """

    pairs: int
    worst_excess: float
    tightest: float
    worst_pair: tuple[int, int]
    same_support: bool
    worst_mass: float
    slack: float = 1e-6

    @property
    def holds(self) -> bool:
        """True when no pair exceeds the bound, supports agree, and rows are probabilities."""
        return self.worst_excess <= self.slack and self.same_support and self.worst_mass <= 1e-9


def audit_log_ratio(
    channel: FiniteChannel, epsilon: float | None = None, ids: npt.ArrayLike | None = None
) -> LogRatioAudit:
    """Check ``max_y |log p(y|x) - log p(y|x')| <= epsilon * d(x, x')`` on the full probability matrix.

    Args:
        channel: the channel, whose ``log_prob`` is audited as it stands.
        epsilon: the claim; the channel's own by default.
        ids: inputs to compare pairwise (all outputs are always compared); all private tokens by default. Time grows
            with ``len(ids)**2 * P``.
    """
    claim = channel.epsilon if epsilon is None else epsilon
    space = channel.space
    inputs = space.private_ids if ids is None else space.check(ids)
    if not space.is_private[inputs].all():
        raise ConfigError("only private tokens are protected: audit those")
    matrix = channel.log_prob(inputs)
    possible = np.isfinite(matrix)
    same_support = bool((possible == possible[0]).all() and (possible[0] == space.is_private).all())
    worst_mass = float(np.abs(np.exp(matrix).sum(axis=1) - 1.0).max())
    columns = np.ascontiguousarray(matrix[:, space.private_ids])
    worst, tightest, pair = -np.inf, 0.0, (int(inputs[0]), int(inputs[0]))
    for first, second in _blocks(len(inputs)):
        ratios = log_ratios(columns[first], columns[second])
        if not same_support:
            ratios[:] = np.inf
        allowed = claim * space.distances(inputs[first])[:, space.column[inputs[second]]]
        excess = ratios - allowed
        at = np.unravel_index(int(np.argmax(excess)), excess.shape)
        if excess[at] > worst:
            worst, pair = float(excess[at]), (int(inputs[first][at[0]]), int(inputs[second][at[1]]))
        apart = allowed > 1e-9
        tightest = max(tightest, float((ratios[apart] / allowed[apart]).max(initial=0.0)))
    return LogRatioAudit(len(inputs) * (len(inputs) - 1) // 2, worst, tightest, pair, same_support, worst_mass)


def log_ratios(first: Floats, second: Floats) -> Floats:
    """Largest absolute log ratio of every two rows of log probabilities ``[n, P]`` and ``[m, P]``, ``[n, m]``.

    Their Chebyshev distance is exactly that.
    """
    ratios: Floats = cdist(first, second, "chebyshev")
    return ratios


def _blocks(size: int, step: int = 256) -> Iterator[tuple[slice, slice]]:
    """Pairs of blocks of rows that cover the upper triangle, each small enough for the processor's cache."""
    starts = range(0, size, step)
    for first in starts:
        for second in starts[first // step :]:
            yield slice(first, first + step), slice(second, second + step)


def sampler_p_value(channel: FiniteChannel, token: int, draws: int, rng: np.random.Generator) -> float:
    """Chi-square p-value that ``sample`` draws from ``log_prob``; outputs expected under 5 times are pooled."""
    expected = np.exp(channel.log_prob([token])[0]) * draws
    observed = np.bincount(channel.sample(np.full(draws, token), rng), minlength=channel.vocab_size).astype(float)
    common = expected >= 5
    pooled_expected = np.append(expected[common], expected[~common].sum())
    pooled_observed = np.append(observed[common], observed[~common].sum())
    kept = pooled_expected > 0
    if pooled_observed[~kept].any():
        return 0.0
    scaled = pooled_expected[kept] * (draws / pooled_expected[kept].sum())
    return float(chisquare(pooled_observed[kept], scaled).pvalue)


@dataclass(frozen=True)
class RadialAudit:
    """P-values of radial noise against its law; small values refute.

    Attributes:
        radius: Kolmogorov-Smirnov, norms against Gamma(d, 1/epsilon).
        mean_direction: Rayleigh test that directions have no mean.
        second_moment: Bingham test that directions have no preferred axis.
        coordinate: Kolmogorov-Smirnov, one squared direction coordinate a sample against Beta(1/2, (d-1)/2).
    """

    radius: float
    mean_direction: float
    second_moment: float
    coordinate: float

    def refuted(self, level: float = 0.001) -> bool:
        """True when any test rejects at the level, Bonferroni-corrected over the four."""
        return min(self.radius, self.mean_direction, self.second_moment, self.coordinate) < level / 4


def audit_radial_noise(noise: Floats, epsilon: float) -> RadialAudit:
    """Test samples against the density proportional to ``exp(-epsilon * ||z||)`` (Mardia and Jupp 2000, ch. 10).

    Args:
        noise: ``[n, d]`` independent samples, ``n`` well above ``d``, ``d >= 2``.
        epsilon: the claim.
    """
    n, d = noise.shape
    norms = np.linalg.norm(noise, axis=1)
    directions = noise / norms[:, None]
    rayleigh = n * d * float(np.sum(directions.mean(axis=0) ** 2))
    scatter = directions.T @ directions / n
    bingham = n * d * (d + 2) / 2 * (float(np.sum(scatter**2)) - 1 / d)
    picked = directions[np.arange(n), np.arange(n) % d] ** 2
    return RadialAudit(
        radius=float(kstest(norms, gamma(a=d, scale=1 / epsilon).cdf).pvalue),
        mean_direction=float(chi2.sf(rayleigh, d)),
        second_moment=float(chi2.sf(bingham, (d - 1) * (d + 2) / 2)),
        coordinate=float(kstest(picked, beta(0.5, (d - 1) / 2).cdf).pvalue) if d > 1 else 1.0,
    )


@dataclass(frozen=True)
class PairBound:
    """A lower bound on epsilon from samples on one pair of neighbours.

    Attributes:
        epsilon_lower: with the stated confidence, the mechanism's epsilon on this pair is at least this.
        claimed: what the promise allows on this pair.
        ceiling: what samples that tell the two apart without fail would have shown: no larger claim can be refuted.
    """

    epsilon_lower: float
    claimed: float
    ceiling: float

    @property
    def refuted(self) -> bool:
        """True when the samples contradict the promise."""
        return self.epsilon_lower > self.claimed


def pair_lower_bound(
    scores: Floats, neighbour_scores: Floats, claimed: float, delta: float = 0.0, confidence: float = 0.999
) -> PairBound:
    """Monte-Carlo lower bound on epsilon for one pair of inputs.

    An event "score at least t" has probability p under one input and q under the other, and
    ``p <= exp(epsilon) q + delta``. The threshold is chosen on the first half of the samples, and exact binomial
    (Clopper-Pearson) limits are taken on the second half, so the choice costs nothing; both directions are tried, each
    limit at a quarter of the error. The likelihood ratio, or anything monotone in it, is the best score.

    Args:
        scores: ``[n]`` scores of outputs on the first input.
        neighbour_scores: ``[n]`` scores of outputs on the second, independent of the first.
        claimed: epsilon allowed for this pair.
        delta: of the claim.
        confidence: of the bound.
    """
    error = (1 - confidence) / 4
    bounds = (
        _directed_bound(scores, neighbour_scores, delta, error),
        _directed_bound(-neighbour_scores, -scores, delta, error),
    )
    held = len(scores) - len(scores) // 2, len(neighbour_scores) - len(neighbour_scores) // 2
    ceiling = max(_log_ratio(n, n, 0, m, delta, error) for n, m in (held, held[::-1]))
    return PairBound(max(0.0, *bounds), claimed, ceiling)


def _directed_bound(first: Floats, second: Floats, delta: float, error: float) -> float:
    half_first, half_second = len(first) // 2, len(second) // 2
    thresholds = np.unique(np.quantile(first[:half_first], np.linspace(0.0, 0.999, 400), method="inverted_cdf"))
    hits = _at_least(first[:half_first], thresholds)
    false_hits = _at_least(second[:half_second], thresholds)
    values = [
        _log_ratio(int(a), half_first, int(b), half_second, delta, error) for a, b in zip(hits, false_hits, strict=True)
    ]
    chosen = thresholds[int(np.argmax(values))]
    held_first, held_second = first[half_first:], second[half_second:]
    return _log_ratio(
        int((held_first >= chosen).sum()),
        len(held_first),
        int((held_second >= chosen).sum()),
        len(held_second),
        delta,
        error,
    )


def _at_least(values: Floats, thresholds: Floats) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
    return counts


def _log_ratio(hits: int, n: int, false_hits: int, m: int, delta: float, error: float) -> float:
    low = float(beta.ppf(error, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - error, false_hits + 1, m - false_hits)) if false_hits < m else 1.0
    return float(np.log((low - delta) / high)) if low > delta else -np.inf


def closest_pair(space: EmbeddingSpace, ids: npt.ArrayLike | None = None) -> tuple[int, int]:
    """The two distinct private tokens at the smallest positive distance, where a metric promise is hardest to keep."""
    inputs: Ids = space.private_ids if ids is None else space.check(ids)
    between = space.distances(inputs)[:, space.column[inputs]]
    between[between <= 1e-6] = np.inf
    first, second = np.unravel_index(int(np.argmin(between)), between.shape)
    return int(inputs[first]), int(inputs[second])


def audit_token_pair(
    channel: TokenChannel, pair: tuple[int, int], draws: int, rng: np.random.Generator, confidence: float = 0.999
) -> PairBound:
    """Monte-Carlo bound for two tokens from outputs alone; works for channels without a closed form.

    The score of an output is how much closer it lies to the first token than to the second, with the tokens themselves
    at the ends; what the promise allows is measured in the mechanism's own metric.
    """
    gap = channel.space.distances([pair[1]])[0] - channel.space.distances([pair[0]])[0]
    columns, metric = channel.space.column, channel.metric
    scores = [gap[columns[channel.sample(np.full(draws, token), rng)]] for token in pair]
    claimed = channel.epsilon * float(metric.distances([pair[0]])[0, metric.column[pair[1]]])
    return pair_lower_bound(scores[0], scores[1], claimed, confidence=confidence)
