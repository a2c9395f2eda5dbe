"""Order: which position holds which of the tokens that were found.

Least squares of the averages on the found tokens' values gives every row's softmax weight of each token. A token's
weight is the sum of ``exp(s - l)`` over the positions that hold it, with keys at their real positions and the row's log
normaliser ``l = m + log g``; a non-negative fit says which they are, and an assignment gives every position one token
and every token a position.

Where ``l`` is noised it is read off the weights themselves: ``s - log(weight)`` is the same number for every token at
its own position, so the normaliser is what most tokens agree on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, nnls
from torch import Tensor

from attacks.prompts.partial_attention_inversion.measurements import LayerTable, Measurements
from attacks.prompts.partial_attention_inversion.row_space import deviation

_PIVOTS = 8  # tokens whose positions are tried for the normaliser
_ROWS = 128  # rows it is compared on
_OUTLYING = 9.0  # squared error, in deviations, beyond which a row only counts as off
_RELATIVE = 1e-5  # error of a weight that fp32 scores explain
_OVER = 3.0  # logarithm of a weight above all others that is still told apart

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """Softmax weights of the found tokens.

    Attributes:
        weight: of each token in each row ``[rows, tokens]``, rows of all heads one after another.
        error: standard deviation of the same.
        scores: of each token at each open position ``[rows, tokens, positions]``.
        log_mass: ``l`` of each row as it was sent ``[rows]``.
    """

    weight: Floats
    error: Floats
    scores: Floats
    log_mass: Floats


def assign(seen: Measurements, rest: Tensor, table: LayerTable, tokens: Tensor, positions: list[int]) -> list[int]:
    """The token that each open position holds.

    Args:
        seen: the measurements.
        rest: averages less what known positions add ``[kv_heads, rows, head_dim]``.
        table: keys and values of the vocabulary.
        tokens: the found ones, at most as many as positions.
        positions: absolute, the open ones.

    Returns:
        One of ``tokens`` for each position.
    """
    weights = _weights(seen, rest, table, tokens, positions)
    log_mass = weights.log_mass if seen.disturbance.log_weight == 0 else _normalisers(weights)
    holds = _held(weights, log_mass)
    return tokens[_one_each(holds)].tolist()


def _weights(seen: Measurements, rest: Tensor, table: LayerTable, tokens: Tensor, positions: list[int]) -> Weights:
    heads, rows, _ = rest.shape
    _, values = table(positions[0], tokens)
    inverse = torch.linalg.pinv(values.transpose(0, 1).double(), rtol=1e-12)
    weight = torch.bmm(rest.double(), inverse)
    error = deviation(seen)[:, None] * torch.linalg.vector_norm(inverse, dim=1)
    scores = torch.stack([seen.excess(table(p, tokens)[0], p) for p in positions], -1)
    scores = scores + seen.maximum[..., None, None]
    size = heads * rows
    return Weights(
        weight.reshape(size, -1).numpy(),
        error[:, None].expand(heads, rows, -1).reshape(size, -1).numpy(),
        scores.reshape(size, len(tokens), -1).double().numpy(),
        (seen.maximum + seen.mass.log()).flatten().double().numpy(),
    )


def _normalisers(weights: Weights) -> Floats:
    """The log normaliser of each row that most tokens agree on ``[rows]``."""
    strength = np.abs(weights.weight / weights.error).clip(0, 1 / _RELATIVE)
    rows = np.argsort(-np.median(strength, 1))[:_ROWS]
    usable = weights.weight > 3 * weights.error
    logs = np.log(np.where(usable, weights.weight, 1.0))
    spread = np.hypot(np.where(usable, weights.error / np.where(usable, weights.weight, 1.0), 1.0), _RELATIVE)
    each = weights.scores - logs[:, :, None]
    pivots = np.argsort(-np.median(strength, 0))[:_PIVOTS]
    best, agreed = np.inf, each[:, pivots[0], 0]
    weigh = np.where(usable, 1.0, 0.0)[rows][:, :, None]
    for pivot in pivots:
        for position in range(each.shape[2]):
            off = each[rows] - each[rows, pivot, position][:, None, None]
            scale = spread[rows] ** 2 + spread[rows, pivot][:, None] ** 2
            error = (np.minimum(off**2 / scale[:, :, None], _OUTLYING) * weigh).sum(0) / weigh.sum(0).clip(1)
            total = float(error.min(1).sum())
            if total < best:
                best, agreed = total, _agreed(each, spread, usable, error)
    return agreed


def _agreed(each: Floats, spread: Floats, usable: NDArray[np.bool_], error: Floats) -> Floats:
    """Mean normaliser over the tokens that agree, each at its best position, by their precision ``[rows]``."""
    place = error.argmin(1)
    agrees = error.min(1) < _OUTLYING / 2
    own = np.take_along_axis(each, place[None, :, None], 2)[:, :, 0]
    precision = np.where(usable & agrees, spread**-2, 0.0) + np.finfo(float).tiny
    mean: Floats = (own * precision).sum(1) / precision.sum(1)
    return mean


def _held(weights: Weights, log_mass: Floats) -> Floats:
    """How much of each token each position holds: one where it is right ``[tokens, positions]``."""
    # no token weighs more than all: what lies far above is a wrong token of a query that no model asks
    expected = np.exp(np.minimum(weights.scores - log_mass[:, None, None], _OVER))
    error = np.hypot(weights.error, _RELATIVE * np.abs(weights.weight))
    fits = [
        _fit(expected[:, token] / error[:, token, None], weights.weight[:, token] / error[:, token])
        for token in range(weights.weight.shape[1])
    ]
    return np.stack(fits)


def _fit(expected: Floats, weight: Floats) -> Floats:
    """Non-negative least squares; replies that it cannot be brought to an end on say nothing of where a token is."""
    try:
        fitted: Floats = nnls(expected, weight)[0]
    except (RuntimeError, ValueError):  # too many iterations, as newer and older releases say it
        return np.zeros(expected.shape[1])
    return fitted


def _one_each(holds: Floats) -> Tensor:
    """Index of the token of each position; every token has one, the positions left over take what fits best."""
    tokens, positions = holds.shape
    worth = holds.clip(0, 1)
    free = np.repeat(worth.max(0, keepdims=True), positions - tokens, 0)
    rows, places = linear_sum_assignment(np.concatenate([worth, free]), maximize=True)
    chosen = worth.argmax(0)
    chosen[places[rows < tokens]] = rows[rows < tokens]
    return torch.from_numpy(chosen)
