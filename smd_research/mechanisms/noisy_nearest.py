"""d_chi privacy: noise on the embedding, then the nearest token (Feyisetan et al., WSDM 2020, Algorithm 1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp

from smd_research.core.errors import NotApplicableError
from smd_research.core.guarantee import Guarantee
from smd_research.core.seeds import generator
from smd_research.mechanisms.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.noise import radial_noise, standard_radial_noise
from smd_research.mechanisms.token_channel import FiniteChannel, TokenChannel, metric_guarantee, scatter

_SURVIVAL_DRAWS = 256
_LARGEST_ESTIMATE = 8192


class NoisyNearestChannel(TokenChannel):
    """Add radial noise to the token's row and emit the nearest private token, by exact Euclidean search.

    The vector is ``epsilon * d``-private; the search is post-processing. The probabilities have no closed form: an
    attacker that needs them uses :meth:`estimate`.
    """

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised = array.copy()
        private = np.flatnonzero(self.space.is_private[array])
        noise = radial_noise(len(private), self.space.width, self.epsilon, rng)
        sanitised[private] = self.space.nearest(self.space.rows[array[private]] + noise)
        return sanitised

    def survival(self, ids: npt.ArrayLike) -> Floats:
        """Monte-Carlo estimate from 256 fixed draws a token (standard error at most 0.032 each)."""
        array = self.space.check(ids)
        share = np.ones(len(array))
        rng = generator(0, "d_chi survival")
        for position in np.flatnonzero(self.space.is_private[array]):
            thresholds = critical_epsilons(self.space, array[position : position + 1], _SURVIVAL_DRAWS, rng)
            share[position] = float((thresholds <= self.epsilon).mean())
        return share

    def guarantee(self) -> Guarantee:
        return metric_guarantee(
            self.space,
            self.epsilon,
            verified="radius law and isotropy of the noise, Monte-Carlo worst-pair bound (mechanisms.audit)",
            source="d_chi privacy (MADLIB), Feyisetan et al., WSDM 2020",
        )

    def estimate(self, draws: int, rng: np.random.Generator) -> "EstimatedChannel":
        """The attacker's Monte-Carlo estimate of ``p(y|x)`` for every private pair.

        Counts of ``draws`` runs of the mechanism on every private token, smoothed by one pseudo-draw from the pairwise
        error law: per coordinate the noise has standard deviation ``sqrt(d+1)/epsilon``, so ``x`` is taken for ``y``
        about as often as a normal variable passes half their distance.

        Raises:
            NotApplicableError: when the vocabulary is so large that the matrix would not fit.
        """
        private = self.space.private_ids
        if len(private) > _LARGEST_ESTIMATE:
            raise NotApplicableError(
                f"the d_chi channel has no closed form and {len(private)} tokens are too many to estimate it "
                f"(limit {_LARGEST_ESTIMATE}); attack it with nearest neighbour, or use mechanism=santext"
            )
        log_matrix = np.empty((len(private), len(private)), dtype=np.float32)
        deviation = np.sqrt(self.space.width + 1) / self.epsilon
        for part in _blocks(len(private), draws):
            rows = np.repeat(self.space.private_rows[part], draws, axis=0)
            drawn = self.space.nearest(rows + radial_noise(len(rows), self.space.width, self.epsilon, rng))
            counts = np.zeros((part.stop - part.start, len(private)))
            np.add.at(counts, (np.arange(len(rows)) // draws, self.space.column[drawn]), 1.0)
            pairwise = log_ndtr(-self.space.distances(private[part]) / (2 * deviation))
            backoff = np.exp(pairwise - logsumexp(pairwise, axis=1, keepdims=True))
            tiny = np.finfo(np.float64).tiny
            log_matrix[part] = np.log(np.maximum((counts + backoff) / (draws + 1), tiny))
        return EstimatedChannel(self.space, self.epsilon, log_matrix)


@dataclass(frozen=True, eq=False, repr=False)
class EstimatedChannel(FiniteChannel):
    """An attacker's estimate of a channel, as a matrix; it promises nothing.

    Attributes:
        log_matrix: ``log p(y|x)`` over private tokens, ``[P, P]`` float32, rows are inputs.
    """

    log_matrix: npt.NDArray[np.float32]

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised = array.copy()
        for position in np.flatnonzero(self.space.is_private[array]):
            row = np.exp(self.log_matrix[self.space.column[array[position]]].astype(np.float64))
            sanitised[position] = rng.choice(self.space.private_ids, p=row / row.sum())
        return sanitised

    def survival(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        columns = self.space.column[array]
        own = np.exp(self.log_matrix[columns, columns].astype(np.float64))
        share: Floats = np.where(columns >= 0, own, 1.0)
        return share

    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        return scatter(self.space, array, self.log_matrix[self.space.column[array]].astype(np.float64))

    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        array = self.space.check(observed)
        return scatter(self.space, array, self.log_matrix[:, self.space.column[array]].T.astype(np.float64))

    def guarantee(self) -> Guarantee:
        return Guarantee(notion="none", unit="token", epsilon=float("inf"), composition="an estimate, not a mechanism")


def critical_epsilons(space: EmbeddingSpace, ids: Ids, draws: int, rng: np.random.Generator) -> Floats:
    """For each private token and noise draw, the smallest epsilon at which the token survives.

    With ``z`` drawn at epsilon one, token ``x`` moves to ``x + z/epsilon`` and stays the nearest exactly when
    ``epsilon >= max_y 2 z.(y - x) / ||y - x||^2``: one draw answers for every epsilon at once.

    Args:
        space: the metric space.
        ids: ``[n]`` private tokens.
        draws: noise vectors for each token.
        rng: source of randomness.

    Returns:
        ``[n, draws]``; infinite where another token has the same row and a lower id.
    """
    found = np.empty((len(ids), draws))
    for index, token in enumerate(ids):
        noise = standard_radial_noise(draws, space.width, rng)
        offsets = space.private_rows - space.rows[token]
        squared = space.distances([token])[0] ** 2
        twin = squared <= 1e-24 * max(1.0, float(squared.max()))
        ratios = 2.0 * (noise @ offsets[~twin].T) / squared[~twin]
        loses_tie = bool(space.private_ids[twin].min() < token)
        found[index] = np.inf if loses_tie else np.maximum(ratios.max(axis=1), 0.0)
    return found


def _blocks(rows: int, draws: int) -> Iterator[slice]:
    """Row blocks of about 64k noisy points."""
    step = max(1, (1 << 16) // draws)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
