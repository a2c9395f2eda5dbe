"""Solve a substitution by its bigrams: soft assignment, cooled, then exact exchanges.

The likelihood of a mapping is a quadratic assignment problem. Graduated assignment (Gold and Rangarajan, 1996) keeps a
distribution over plain ids for each cipher id, moves it along the likelihood's gradient, and lets every plain id be
taken about as often as it has cipher ids; it is expectation maximisation with the constraint that the key is one. What
it settles on is improved by exchanges, each counted by the exact likelihood.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from attacks.base import Ids
from attacks.cryptanalysis.bigrams import Puzzle

Soft = NDArray[np.float32]
_BALANCING = 8  # rounds of row and column normalisation
_PATIENCE = 6  # halvings of a set of exchanges before it is given up


@dataclass(frozen=True)
class Cooling:
    """How slowly the assignment hardens: ``steps`` gradients at weights ``start .. 1`` (geometric)."""

    start: float = 0.1
    steps: int = 10


def balanced(scores: Soft, capacity: NDArray[np.float32], fixed: Ids) -> Soft:
    """Distributions over plain ids ``[k, V]`` with no plain id taken above its capacity ``[V]``."""
    soft: Soft = np.exp(scores - scores.max(axis=1, keepdims=True))
    known = np.flatnonzero(fixed >= 0)
    for _ in range(_BALANCING):
        soft /= np.maximum(soft.sum(axis=1, keepdims=True), 1e-30)
        soft[known] = 0
        soft[:, fixed[known]] = 0
        soft[known, fixed[known]] = 1
        soft /= np.maximum(soft.sum(axis=0) / capacity, 1)
    return soft


def anneal(puzzle: Puzzle, first: Soft, capacity: NDArray[np.float32], cooling: Cooling) -> Soft:
    """From first scores ``[k, V]``, which stay as evidence, to the scores of a nearly hard assignment."""
    scores = first
    for weight in np.geomspace(cooling.start, 1, cooling.steps):
        gradient = puzzle.gradient(balanced(scores, capacity, puzzle.fixed))
        scores = np.float32(weight) * gradient + first
    return scores


def assigned(scores: Soft, capacity: NDArray[np.float32], fixed: Ids) -> Ids:
    """The best plain id of each cipher id ``[k]`` with every plain id used at most as often as its capacity allows."""
    columns = np.repeat(np.arange(scores.shape[1]), capacity.astype(np.int64))
    costs = -scores[:, columns]
    known = np.flatnonzero(fixed >= 0)
    costs[known] = 1e9
    costs[known, np.searchsorted(columns, fixed[known])] = -1e9
    rows, taken = linear_sum_assignment(costs)
    choice = np.empty(len(scores), dtype=np.int64)
    choice[rows] = columns[taken]
    return choice


def climb(puzzle: Puzzle, choice: Ids, rounds: int) -> tuple[Ids, float]:
    """Exchange the plain ids of pairs of cipher ids, many pairs at once, as long as the likelihood rises.

    Returns:
        The mapping ``[k]`` and its log-likelihood.
    """
    best, value = choice.copy(), puzzle.likelihood(choice)
    for _ in range(rounds):
        rows, plain = _exchanges(puzzle, best)
        for halving in range(_PATIENCE):
            kept = max(1, len(rows) >> halving)
            trial = _exchanged(best, rows[:kept], plain[:kept])
            risen = puzzle.likelihood(trial)
            if risen > value:
                break
        if not len(rows) or risen <= value:
            break
        best, value = trial, risen
    return best, value


def _exchanges(puzzle: Puzzle, choice: Ids) -> tuple[Ids, Ids]:
    """Cipher ids and the plain ids that they should take over, best first, no id in two exchanges."""
    k = len(choice)
    right, left = puzzle.beside(choice)
    gradient = puzzle.prior + right + left
    gradient -= gradient[np.arange(k), choice][:, None]
    owner = np.full(gradient.shape[1], -1)
    owner[choice] = np.arange(k)
    returned = np.where(owner >= 0, gradient[owner][:, choice].T, 0)
    gain = gradient + returned
    gain[puzzle.fixed >= 0] = -np.inf
    gain[:, puzzle.fixed[puzzle.fixed >= 0]] = -np.inf
    plain = gain.argmax(axis=1)
    best = gain[np.arange(k), plain]
    partner = np.where(owner[plain] >= 0, owner[plain], np.arange(k))
    strongest = np.full(k, -np.inf)
    np.maximum.at(strongest, np.arange(k), best)
    np.maximum.at(strongest, partner, best)
    wanted = np.full(gradient.shape[1], -np.inf)
    np.maximum.at(wanted, plain, best)
    free = (best > 0) & (best >= strongest) & (best >= strongest[partner]) & (best >= wanted[plain])
    rows = np.flatnonzero(free)
    rows = rows[np.argsort(-best[rows])]
    return rows, plain[rows]


def _exchanged(choice: Ids, rows: Ids, plain: Ids) -> Ids:
    owner = np.full(max(int(choice.max()), int(plain.max(initial=0))) + 1, -1)
    owner[choice] = np.arange(len(choice))
    trial = choice.copy()
    others = owner[plain]
    given = others >= 0
    trial[others[given]] = choice[rows[given]]
    trial[rows] = plain
    return trial
