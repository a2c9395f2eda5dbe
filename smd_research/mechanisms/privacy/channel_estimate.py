"""An attacker's estimate of a channel that has no closed form, from runs of the public mechanism."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smd_research.core.errors import NotApplicableError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.embedding_space import Floats, Ids
from smd_research.mechanisms.privacy.token_channel import FiniteChannel, TokenChannel, scatter

_LARGEST = 8192
_ITERATIONS = 12
_CHUNK = 1024
_RUNS = 16384
"""Runs of the mechanism at once, which bounds the memory that their noise takes."""
# Pseudo-draws from the fitted law that each row of counts is mixed with: a chance hit on one of thousands of outputs is
# no evidence against all the others. Between 32 and no counts at all, 256 recovered most on a 512-token vocabulary.
_STRENGTH = 256.0

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class EstimatedChannel(FiniteChannel):
    """An attacker's estimate of a channel, as a matrix; it promises nothing.

    Attributes:
        log_matrix: ``log p(y|x)`` over private tokens, ``[P, P]`` float32, rows are inputs.
        error: root mean square error of the probability that a token passes unchanged, over tokens as often as they
            occur.
    """

    log_matrix: npt.NDArray[np.float32]
    error: float

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


def estimate_channel(
    channel: TokenChannel, draws: int, rng: np.random.Generator, often: npt.ArrayLike | None = None
) -> EstimatedChannel:
    """Estimate ``p(y|x)`` for every private pair from ``draws`` runs on every private token.

    A few draws cannot fill a row of thousands of outputs, so the counts are mixed with a law of few parameters fitted
    to them by maximum likelihood, ``log q(y|x) = a d(x,y) + b d(x,y)^2 + h(y) - log Z(x)``: how fast outputs thin out
    with distance, and how often each output is hit (its cell of the nearest-neighbour map has its own size). How often
    a token passes unchanged is mixed by itself, with as many pseudo-draws as the draws have the law deserve: words that
    occur often lie in cells of their own.

    What the estimate is worth is told by as many runs again, which it has not seen.

    Args:
        channel: any channel, used through ``sample`` alone.
        draws: runs for each token.
        rng: source of randomness.
        often: how often each token of the vocabulary occurs in public text ``[V]``; all alike where it is not given.

    Raises:
        NotApplicableError: when the vocabulary is so large that the matrix would not fit.
    """
    space = channel.space
    size = len(space.private_ids)
    if size > _LARGEST:
        raise NotApplicableError(
            f"the channel has no closed form and {size} tokens are too many to estimate it (limit {_LARGEST}); "
            "attack it with mode=nearest, or defend with mechanism=santext"
        )
    outputs = _run(channel, draws, rng)
    distances = np.empty((size, size), dtype=np.float32)
    for part in _rows(size):
        distances[part] = space.distances(space.private_ids[part])
    slopes, hits = _fit(distances, outputs)
    weights = np.ones(size) if often is None else np.asarray(often, dtype=np.float64)[space.private_ids]
    own = np.concatenate([_law(distances[part], slopes, hits).diagonal(part.start) for part in _rows(size)])
    passing = _passing(own.astype(np.float64), outputs, weights)
    log_matrix = np.empty((size, size), dtype=np.float32)
    for part in _rows(size):
        mixed = _mixed(_law(distances[part], slopes, hits), outputs[part], passing[part], part.start)
        log_matrix[part] = np.log(np.maximum(mixed, np.finfo(np.float32).tiny))
    error = _error(np.exp(np.diagonal(log_matrix).astype(np.float64)), _run(channel, draws, rng), weights)
    return EstimatedChannel(space, channel.epsilon, log_matrix, error)


def _passing(law: Floats, outputs: Ids, weights: Floats) -> Floats:
    """Probability that each token passes ``[P]``: what the law says of it, corrected by the draws ``[P, draws]``.

    Were the law right, shares of ``n`` draws would scatter around it with variance ``q (1 - q) / n``; where tokens
    differ from it as a beta law of strength ``s`` does, with ``1 + (n - 1) / (s + 1)`` times that, which tells ``s``.
    """
    draws = outputs.shape[1]
    seen = (outputs == np.arange(len(law))[:, None]).mean(axis=1)
    alone = np.average(law * (1 - law) / draws, weights=weights)
    beyond = np.average((seen - law) ** 2, weights=weights) / max(alone, 1e-12) - 1
    strength = min(_STRENGTH, max(1.0, (draws - 1) / max(beyond, 1e-12) - 1))
    passing: Floats = (draws * seen + strength * law) / (draws + strength)
    return passing


def _mixed(law: Matrix, outputs: Ids, passing: Floats, first: int) -> Matrix:
    """Rows ``[x, P]`` of the fitted law, from token ``first`` on, mixed with the counts of ``outputs [x, draws]``."""
    rows = np.arange(len(law))
    mixed: Matrix = law * np.float32(_STRENGTH)
    np.add.at(mixed, (rows[:, None], outputs), 1.0)
    mixed[rows, rows + first] = 0.0
    others = np.maximum(mixed.sum(axis=1), np.finfo(np.float32).tiny)
    mixed *= ((1.0 - passing) / others).astype(np.float32)[:, None]
    mixed[rows, rows + first] = passing
    return mixed


def _error(passing: Floats, fresh: Ids, weights: Floats) -> float:
    """Root mean square error of probabilities ``[P]`` that a token passes, by the outputs ``[P, draws]`` of other runs.

    The runs' own variance is taken off their distance from the estimate, so that it is told without bias; NaN for
    a single run, which tells no variance.
    """
    draws = fresh.shape[1]
    if draws < 2:
        return math.nan
    seen = (fresh == np.arange(len(fresh))[:, None]).mean(axis=1)
    squares = (passing - seen) ** 2 - seen * (1 - seen) / (draws - 1)
    return math.sqrt(max(0.0, float(np.average(squares, weights=weights))))


def _run(channel: TokenChannel, draws: int, rng: np.random.Generator) -> Ids:
    """Columns of the outputs of every private token, ``[P, draws]``."""
    space = channel.space
    outputs = np.empty((len(space.private_ids), draws), dtype=np.int64)
    for part in _rows(len(outputs), max(1, _RUNS // draws)):
        drawn = channel.sample(np.repeat(space.private_ids[part], draws), rng)
        outputs[part] = space.column[drawn].reshape(-1, draws)
    return outputs


def _fit(distances: Matrix, outputs: Ids) -> tuple[Floats, Floats]:
    """Slopes ``[2]`` by Newton steps and hit rates ``h [P]`` by proportional fitting, in turn."""
    size, draws = outputs.shape
    seen = np.take_along_axis(distances, outputs, axis=1).astype(np.float64)
    observed = np.array([seen.sum(), (seen**2).sum()])
    hit = np.bincount(outputs.reshape(-1), minlength=size) + 1.0
    typical = float(np.sqrt(np.mean(distances[:: max(1, size // 64)] ** 2)))
    slopes, hits = np.array([0.0, -4.0 / typical**2]), np.zeros(size)
    for _ in range(_ITERATIONS):
        mean, covariance, column = np.zeros(2), np.zeros((2, 2)), np.zeros(size)
        for part in _rows(size):
            law, d = _law(distances[part], slopes, hits), distances[part]
            first, second, third, fourth = (
                np.einsum("xy,xy->x", law, d**power).astype(np.float64) for power in (1, 2, 3, 4)
            )
            column += law.sum(axis=0)
            mean += np.array([first.sum(), second.sum()])
            cross = float((third - first * second).sum())
            covariance += np.array(
                [[float((second - first**2).sum()), cross], [cross, float((fourth - second**2).sum())]]
            )
        hits += np.log(hit / (draws * column + 1.0))
        hits -= hits.mean()
        step = np.linalg.solve(draws * covariance + 1e-6 * np.eye(2), observed - draws * mean)
        # A far start can overshoot: no step changes the score at a typical distance by more than two.
        change = abs(step[0]) * typical + abs(step[1]) * typical**2
        slopes = slopes + step * min(1.0, 2.0 / max(change, 1e-12))
    return slopes, hits


def _law(distances: Matrix, slopes: Floats, hits: Floats) -> Matrix:
    """``q(y|x)``, rows summing to one, ``[x, P]``."""
    scores = np.float32(slopes[0]) * distances + np.float32(slopes[1]) * distances**2 + hits.astype(np.float32)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _rows(size: int, step: int = _CHUNK) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(size, start + step))
