"""The linear part: whitened, ordered interference cancellation over what the deductions left open.

``A`` and the row masses are sums of known (position, token) columns, one per position (attention weights times
``[lambda, v]``). Matching a column against the raw residual fails, since columns of one head point the same way; so the
rows are whitened by the covariance of the still unknown columns, which makes the match the linear minimum-mean-square
detector of multi-user radio, and positions are decided in the order of their confidence (ordered successive
interference cancellation; V-BLAST, Wolniansky et al. 1998).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.unmixing.deduction import Rows
from attacks.unmixing.measurements import Candidates, Measurements

_RIDGE = 1e-10  # of the mean interference power: what fp32 factorisations bear
_SAMPLE = 256  # columns of one position that estimate its covariance
_PAIRED = 12  # positions and
_ALTERNATIVES = 96  # tokens of each that pair moves try


@dataclass(frozen=True)
class Equations:
    """A subsample of the scalar equations ``target = sum_p column_p(x_p)``.

    Attributes:
        row: row of each equation ``[equations]``.
        component: column of ``[lambda, v of every key/value head]`` that it reads ``[equations]``.
        mass: ``g`` of its row ``[equations]``.
        target: measured value ``[equations]``.
        noise: standard deviation that rounding explains ``[equations]``.
        balance: ``lambda``, the weight of the mass equations beside those of ``A``.
    """

    row: Tensor
    component: Tensor
    mass: Tensor
    target: Tensor
    noise: Tensor
    balance: float

    @classmethod
    def sample(cls, seen: Measurements, rows: Rows, limit: int, rng: np.random.Generator) -> "Equations":
        """Draw at most ``limit`` equations: every mass that fits in half of them, averages for the rest."""
        heads, per_head, dim = seen.average.shape
        total = heads * per_head
        balance = float(seen.average.square().mean().sqrt())
        masses = rng.permutation(total)[: max(limit // 2, limit - total * dim)]
        entries = rng.permutation(total * dim)[: limit - masses.size]
        row = torch.from_numpy(np.concatenate([masses, entries // dim]))
        component = torch.from_numpy(
            np.concatenate([np.zeros_like(masses), 1 + entries // dim // per_head * dim + entries % dim])
        )
        averages = seen.average.flatten()[torch.from_numpy(entries)]
        target = torch.cat([torch.full((masses.size,), balance), averages])
        noise = rows.tolerance[row] * balance
        noise[masses.size :] += seen.precision * averages.abs() + seen.value_precision * balance
        return cls(row, component, rows.mass[row], target, noise, balance)

    def columns(self, candidates: Candidates) -> Tensor:
        """What each candidate contributes ``[equations, tokens]``."""
        ones = torch.full((len(candidates), 1), self.balance)
        features = torch.cat([ones, candidates.values.flatten(1)], 1)
        weights = candidates.excess.exp()[self.row] / self.mass[:, None]
        return weights * features[:, self.component].T


class Whitener:
    """Inverse square root of the covariance of the columns still unknown, plus rounding noise."""

    def __init__(self, equations: Equations, columns: Sequence[Tensor], rng: np.random.Generator) -> None:
        covariance = torch.zeros(equations.target.numel(), equations.target.numel(), dtype=torch.float64)
        for column in columns:
            if column.shape[1] > 1:
                chosen = torch.from_numpy(rng.permutation(column.shape[1])[:_SAMPLE])
                centred = (column[:, chosen] - column.mean(1, keepdim=True)).double()
                covariance.addmm_(centred, centred.T, alpha=1 / len(chosen))
        diagonal = covariance.diagonal()
        diagonal += equations.noise.square() + _RIDGE * diagonal.mean() + torch.finfo(torch.float32).tiny
        self._factor = torch.linalg.cholesky(covariance)

    def __call__(self, columns: Tensor) -> Tensor:
        """Whiten ``[equations, k]``."""
        white: Tensor = torch.linalg.solve_triangular(self._factor, columns.double(), upper=False).float()
        return white


def detect(
    equations: Equations, candidates: Sequence[Candidates], bias: Sequence[Tensor] | None, rng: np.random.Generator
) -> list[tuple[float, int, int]]:
    """Score every open position's candidates against the whitened residual.

    Args:
        equations: the linear measurements.
        candidates: possible tokens of each position; single ones count as known.
        bias: log prior over each position's candidates, or None.
        rng: draws the covariance sample.

    Returns:
        ``(margin, position, token)`` of each open position, most confident first; the margin is the best score less
        the second best.
    """
    columns = [equations.columns(c) for c in candidates]
    means = [column.mean(1, keepdim=True) for column in columns]
    whiten = Whitener(equations, columns, rng)
    residual = whiten(equations.target[:, None] - torch.stack(means).sum(0))[:, 0]
    decisions = []
    for position, (candidate, column, mean) in enumerate(zip(candidates, columns, means, strict=True)):
        if len(candidate) > 1:
            white = whiten(column - mean)
            score = white.T @ residual - white.square().sum(0) / 2
            if bias is not None:
                score += bias[position]
            best = score.topk(2)
            margin = float(best.values[0] - best.values[1])
            decisions.append((margin, position, int(candidate.ids[best.indices[0]])))
    return sorted(decisions, reverse=True)


def polish(
    equations: Equations, candidates: Sequence[Candidates], choice: Sequence[int], rng: np.random.Generator, sweeps: int
) -> list[int]:
    """Improve a complete assignment: coordinate sweeps, then joint moves of the least certain pairs.

    Args:
        equations: the linear measurements.
        candidates: tokens that may be chosen at each position.
        choice: index of the chosen candidate of each position.
        rng: draws the covariance sample.
        sweeps: most sweeps over all positions.

    Returns:
        Indices with whitened residual no larger than before.
    """
    columns = [equations.columns(c) for c in candidates]
    whiten = Whitener(equations, columns, rng)
    white = [whiten(column) for column in columns]
    chosen = list(choice)
    target = whiten(equations.target[:, None])[:, 0]
    residual = target - torch.stack([w[:, i] for w, i in zip(white, chosen, strict=True)]).sum(0)
    for _ in range(sweeps):
        residual, margins, moved = _sweep(white, chosen, residual)
        if not moved:
            residual, moved = _move_pairs(white, chosen, residual, margins)
            if not moved:
                break
    return chosen


def _energies(white: Tensor, target: Tensor) -> Tensor:
    """``|target - column|^2 - |target|^2`` of each column."""
    return white.square().sum(0) - 2 * (white.T @ target)


def _sweep(white: Sequence[Tensor], chosen: list[int], residual: Tensor) -> tuple[Tensor, dict[int, float], bool]:
    margins: dict[int, float] = {}
    moved = False
    for position, column in enumerate(white):
        if column.shape[1] == 1:
            continue
        rest = residual + column[:, chosen[position]]
        best = _energies(column, rest).topk(2, largest=False)
        margins[position] = float(best.values[1] - best.values[0])
        index = int(best.indices[0])
        if index != chosen[position]:
            chosen[position], moved = index, True
            residual = rest - column[:, index]
    return residual, margins, moved


def _move_pairs(
    white: Sequence[Tensor], chosen: list[int], residual: Tensor, margins: dict[int, float]
) -> tuple[Tensor, bool]:
    doubtful = sorted(margins, key=margins.__getitem__)[:_PAIRED]
    moved = False
    for i, first in enumerate(doubtful):
        for second in doubtful[i + 1 :]:
            a, b = white[first], white[second]
            rest = residual + a[:, chosen[first]] + b[:, chosen[second]]
            energy_a, energy_b = _energies(a, rest), _energies(b, rest)
            top_a = energy_a.topk(min(_ALTERNATIVES, energy_a.numel()), largest=False).indices
            top_b = energy_b.topk(min(_ALTERNATIVES, energy_b.numel()), largest=False).indices
            joint = energy_a[top_a, None] + energy_b[top_b] + 2 * (a[:, top_a].T @ b[:, top_b])
            best = int(joint.argmin())
            pick = int(top_a[best // joint.shape[1]]), int(top_b[best % joint.shape[1]])
            moved_residual = rest - a[:, pick[0]] - b[:, pick[1]]
            # A hair of tolerance, so that equal energies do not swap for ever.
            if float(moved_residual.square().sum()) < float(residual.square().sum()) * (1 - 1e-4):
                chosen[first], chosen[second], moved = *pick, True
                residual = moved_residual
    return residual, moved
