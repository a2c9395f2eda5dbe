"""Token channels: what a client sends in place of each token, and the law its attacker knows (Kerckhoffs)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from smd_research.core.guarantee import Guarantee, check_epsilon
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.normalisers import Likelihood, Normalisers, log_sums


@dataclass(frozen=True, eq=False)
class TokenChannel(ABC):
    """A randomised map of token ids, applied to each position independently.

    Public tokens pass unchanged; a private token always becomes a private token, every one of which is possible for
    every input. The length of a prompt and the places of its public tokens are not hidden.

    Attributes:
        space: the public metric space.
        epsilon: privacy parameter of one token, per unit of the space's distance; positive and finite.
    """

    space: EmbeddingSpace
    epsilon: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.space.vocab_size

    @abstractmethod
    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        """Sanitised ids ``[n]`` for ids ``[n]``."""

    @abstractmethod
    def survival(self, ids: npt.ArrayLike) -> Floats:
        """Probability ``P(y = x)`` that each token passes unchanged, ``[n]``."""

    @property
    def metric(self) -> EmbeddingSpace:
        """Where the distance is measured that scales epsilon; the space itself but for a mechanism with its own."""
        return self.space

    @abstractmethod
    def guarantee(self) -> Guarantee:
        """What one token is promised, and what a prompt costs."""


class FiniteChannel(TokenChannel):
    """A channel whose probabilities can be written down."""

    @abstractmethod
    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        """``log p(y|x)`` for every output ``y``: ``[n, V]`` for inputs ``[n]``; ``-inf`` where impossible."""

    @abstractmethod
    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        """``log p(y|x)`` for every input ``x``: ``[n, V]`` for outputs ``[n]``; ``-inf`` where impossible."""

    def likelihood(self, observed: npt.ArrayLike) -> Likelihood:
        """The same for whoever looks for the likeliest inputs only: exact for those that are asked for."""
        values = self.log_likelihood(observed)
        return Likelihood(values, Normalisers(np.zeros(self.vocab_size), np.ones(self.vocab_size, bool), np.zeros_like))


class ExponentialChannel(FiniteChannel):
    """The exponential mechanism over embedding distance, in the form of SanText (Yue et al., Findings ACL 2021, §4).

    ``log p(y|x) = -epsilon/2 * d(x, y) - log sum_y' exp(-epsilon/2 * d(x, y'))``. The factor one half pays for the
    normaliser, which also moves with ``x``; together they change by at most ``epsilon * d(x, x')``. Everything is in
    float64 log space, so no probability underflows to an exact zero; only :meth:`sample` works with probabilities, and
    an output rarer than about 2**-53 cannot be drawn (the floating-point caveat of every sampler).
    """

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        return self.drawn(array, rng.random(len(array)))

    def drawn(self, ids: npt.ArrayLike, uniforms: Floats) -> Ids:
        """Inverse-transform sampling on cumulative rows, which are computed once for each distinct token.

        Args:
            ids: ``[n]``.
            uniforms: what decides each draw, ``[n]``, in [0, 1).

        Returns:
            Sanitised ids ``[n]``.
        """
        array = self.space.check(ids)
        sanitised = array.copy()
        private = np.flatnonzero(self.space.is_private[array])
        columns = drawn_columns(self._scores, array[private], uniforms[private], self.space.chunks)
        sanitised[private] = self.space.private_ids[columns]
        return sanitised

    def survival(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        share = np.ones(len(array))
        private = np.flatnonzero(self.space.is_private[array])
        for part in self.space.chunks(len(private)):
            share[private[part]] = np.exp(-log_sums(self._scores(array[private[part]])))
        return share

    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        scores = self._scores(array)
        return scatter(self.space, array, scores - log_sums(scores.copy())[:, None])

    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        array = self.space.check(observed)
        self._normalisers.settle(self.space.private_ids)
        return scatter(self.space, array, self._scores(array)) - self._normalisers.values

    def likelihood(self, observed: npt.ArrayLike) -> Likelihood:
        array = self.space.check(observed)
        return Likelihood(scatter(self.space, array, self._scores(array)), self._normalisers)

    @cached_property
    def _normalisers(self) -> Normalisers:
        """``log sum_y exp(-epsilon/2 * d(x, y))`` of every input, 0 for public ones; all exact ones cost ``P * P * d``.

        The bound is Jensen's: the other ``P - 1`` terms are at least as much as if each stood at the root of the mean
        squared distance. In the unit space, where distances are much alike, it lies within half a nat.
        """
        least, others = np.zeros(self.vocab_size), len(self.space.private_ids) - 1
        least[self.space.private_ids] = np.log1p(others * self._least_mean_weight())
        return Normalisers(least, ~self.space.is_private, self._log_normalisers)

    def _least_mean_weight(self) -> Floats:
        """No more than the mean of ``exp(score)`` over the other outputs of each private input, ``[P]``."""
        return np.exp(-0.5 * self.epsilon * np.sqrt(self.space.mean_squares))

    def _log_normalisers(self, ids: Ids) -> Floats:
        """The exact ones of private inputs ``[n]``."""
        found = np.empty(len(ids))
        for part in self.space.chunks(len(ids)):
            found[part] = log_sums(self._scores(ids[part]))
        return found

    def guarantee(self) -> Guarantee:
        return metric_guarantee(
            self.space,
            self.epsilon,
            verified="exact: log-ratio bound over the full probability matrix (mechanisms.audit.audit_log_ratio)",
            source="SanText, Yue et al., Findings ACL 2021",
        )

    def _scores(self, ids: Ids) -> Floats:
        """Unnormalised log probabilities over the private tokens, ``[n, P]``."""
        scores = self.space.distances(ids)
        scores *= -0.5 * self.epsilon
        return scores


def drawn_columns(
    scores: Callable[[Ids], Floats], ids: Ids, uniforms: Floats, chunks: Callable[[int], Iterator[slice]]
) -> Ids:
    """Inverse-transform sampling of an output's column for every id, a row of scores for each distinct one.

    Args:
        scores: unnormalised log probabilities ``[n, columns]`` of ids ``[n]``, each row's largest about 0.
        ids: ``[n]``.
        uniforms: what decides each draw, ``[n]``, in [0, 1).
        chunks: how many rows are held at once.
    """
    distinct, inverse = np.unique(ids, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.searchsorted(inverse[order], np.arange(len(distinct) + 1))
    columns = np.empty(len(ids), dtype=np.int64)
    for part in chunks(len(distinct)):
        cumulative = scores(distinct[part])
        np.cumsum(np.exp(cumulative, out=cumulative), axis=1, out=cumulative)
        here = order[ends[part.start] : ends[part.stop]]
        rows = inverse[here] - part.start
        columns[here] = _places(cumulative, rows, uniforms[here] * cumulative[rows, -1])
    return columns


def _places(cumulative: Floats, rows: Ids, targets: Floats) -> Ids:
    """The first column above each target in its row of ``cumulative``, else the last: all bisected at once, ``[n]``."""
    last = cumulative.shape[1] - 1
    low, high = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), last, dtype=np.int64)
    for _ in range(last.bit_length()):
        middle = (low + high) // 2
        above = cumulative[rows, middle] > targets
        low, high = np.where(above, low, np.minimum(middle + 1, high)), np.where(above, middle, high)
    return low


def scatter(space: EmbeddingSpace, given: Ids, values: Floats) -> Floats:
    """Spread values over private tokens ``[n, P]`` to the vocabulary ``[n, V]``; public tokens map to themselves."""
    full = np.full((len(given), space.vocab_size), -np.inf)
    private = space.is_private[given]
    full[np.ix_(private, space.private_ids)] = values[private]
    public = np.flatnonzero(~private)
    full[public, given[public]] = 0.0
    return full


def metric_guarantee(
    space: EmbeddingSpace,
    epsilon: float,
    verified: str,
    source: str,
    metric: str = "Euclidean distance of {scale} embedding rows",
    farthest: float | None = None,
    distance: str = "distance",
) -> Guarantee:
    """Metric differential privacy of a token channel, per token and for a whole prompt.

    Args:
        space: where the distance is measured.
        epsilon: of one token and unit of distance.
        verified: what would refute it.
        source: the paper.
        metric: the distance in words.
        farthest: no two tokens lie farther apart; by default the space's bound.
        distance: what its unit is called.
    """
    diameter = space.diameter_bound if farthest is None else farthest
    worst = epsilon * diameter
    return Guarantee(
        notion="metric-DP",
        unit=f"token and unit of {distance}",
        epsilon=epsilon,
        metric=f"{metric.format(scale=space.scale)}, diameter at most {diameter:.3g}",
        adjacency="replacement of private tokens; prompts of equal length with the same public tokens",
        composition=(
            f"any one token at most {worst:.4g}-LDP; a prompt of n tokens the sum of epsilon*d over its positions, "
            f"at most n*{worst:.4g}"
        ),
        unit_epsilon=worst,
        support="every private token, whatever the input; public tokens pass",
        assumptions="public embedding table and vocabulary; length and special tokens visible; float64 sampling",
        verified=verified,
        source=source,
    )
