"""The linear part: soft, whitened interference cancellation over what the deductions left open.

``A`` and the row masses are sums of known (position, token) columns, one per position (attention weights times
``[lambda, v]``). Matching a column against the raw residual fails, since columns of one head point the same way; so the
rows are whitened by the covariance of the still unknown columns, which makes the match the linear minimum-mean-square
detector of multi-user radio. Every position then holds a distribution over its candidates, its expected column is
cancelled, and only the doubt that is left counts as interference in the next round (turbo equalisation; Tuchler,
Koetter and Singer 2002). What matters is the number of equations for each unknown position: some sixty rank the truth
first, where the one equation for each of hundreds of candidates that a dense dictionary would ask for is out of reach.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.deduction import Rows
from attacks.prompts.partial_attention_inversion.measurements import SIGMAS, Candidates, Measurements

_PER_POSITION = 60  # equations for each open position that a detection asks for
_FEWEST = 1024  # equations, however few positions are open,
_PER_CANDIDATE = 8  # unless so many for each candidate are fewer
_BLOCK = 1024  # equations whitened together while the candidates are many
_PRECISE = 20_000  # candidates: up to this many are whitened in fp64 and in larger blocks
_WIDE_BLOCK = 4096
_RIDGE = {torch.float32: 2e-7, torch.float64: 1e-10}  # of the mean interference power: what a factorisation bears
_SAMPLE = 256  # columns of one position that estimate its covariance
_SHORT = 4096  # candidates kept for the rounds after the first
_ROUNDS = 8
_SOFTNESS = 2.0  # temperature of the beliefs: the scores of one round share its errors
_SOFTER = 6.0  # factor on it when they prove too sharp,
_SOFTEST = 100.0  # up to here
_DOUBT = 0.1  # share of every belief that stays spread over all its candidates
_SETTLED = 0.02  # residual power at which nothing is left to cancel
_INCONSISTENT = 2.0  # residual power that beliefs which hold the truth do not leave
_PAIRED = 12  # positions and
_ALTERNATIVES = 96  # tokens of each that pair moves try
_BROKEN = 16.0  # nats above a row's maximum: as impossible as more, and its square stays a number


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

    def __len__(self) -> int:
        return self.row.numel()

    @classmethod
    def sample(
        cls, seen: Measurements, rows: Rows, limit: int, rng: np.random.Generator, heads: np.ndarray | None = None
    ) -> "Equations":
        """Draw at most ``limit`` equations: every mass that fits in half of them, averages for the rest.

        Args:
            seen: the measurements.
            rows: their masses and tolerances.
            limit: most equations.
            rng: draws them.
            heads: key/value heads to draw from; None means all.
        """
        every, per_head, dim = seen.average.shape
        chosen = np.arange(every) if heads is None else heads
        pool = (chosen[:, None] * per_head + np.arange(per_head)).ravel()
        balance = float(seen.average.square().mean().sqrt())
        masses = rng.permutation(pool)[: max(limit // 2, limit - pool.size * dim)]
        entries = rng.permutation(pool.size * dim)[: limit - masses.size]
        averaged, component = pool[entries // dim], entries % dim
        averages = seen.average.flatten(0, 1)[torch.from_numpy(averaged), torch.from_numpy(component)]
        row = torch.from_numpy(np.concatenate([masses, averaged]))
        target = torch.cat([torch.full((masses.size,), balance), averages])
        noise = _deviation(seen, rows)[row] * balance
        noise[masses.size :] += seen.precision * averages.abs() + seen.value_precision * balance
        noise[masses.size :] += seen.disturbance.average
        where = torch.from_numpy(np.concatenate([np.zeros_like(masses), 1 + averaged // per_head * dim + component]))
        return cls(row, where, rows.mass[row], target, noise, balance)

    def columns(self, candidates: Candidates) -> Tensor:
        """What each candidate contributes ``[equations, tokens]``."""
        ones = torch.full((len(candidates), 1), self.balance)
        features = torch.cat([ones, candidates.values.flatten(1)], 1)
        weights = candidates.excess.clamp(max=_BROKEN).exp()[self.row] / self.mass[:, None]
        return weights.mul_(features.T[self.component])


Decision = tuple[float, int, int]
"""(margin, position, token): the margin is the best score less the second best."""


@dataclass(frozen=True)
class Belief:
    """Candidates of one position with their probabilities ``[tokens]``."""

    candidates: Candidates
    weights: Tensor

    @property
    def known(self) -> bool:
        """Whether one candidate is left."""
        return len(self.candidates) == 1


@dataclass(frozen=True)
class Detection:
    """What one round of a detection found.

    Attributes:
        decisions: one of each open position, most confident first.
        beliefs: candidates still in play at every position, with their probabilities.
        scored: columns scored.
        flops: multiply-adds times two.
    """

    decisions: list[Decision]
    beliefs: list[Belief]
    scored: int
    flops: float


def equations_for(
    seen: Measurements, rows: Rows, candidates: Sequence[Candidates], work: float, limit: int, rng: np.random.Generator
) -> list[Equations]:
    """Blocks of equations over disjoint key/value heads, as many as the open positions need and the work allows."""
    heads, per_head, dim = seen.average.shape
    open_ones = [len(c) for c in candidates if len(c) > 1]
    columns = sum(open_ones) / 2 + sum(min(_SAMPLE, size) for size in open_ones)
    block = _WIDE_BLOCK if sum(open_ones) <= _PRECISE else _BLOCK
    wanted = min(max(_FEWEST, _PER_POSITION * len(open_ones)), 64 + _PER_CANDIDATE * sum(open_ones))
    wanted = min(wanted, limit, heads * per_head * (dim + 1))
    affordable = max(math.sqrt(work / max(columns, 1)) if wanted <= block else work / max(columns, 1) / block, 64)
    total = int(min(wanted, affordable))
    blocks = min(heads, math.ceil(total / block))
    groups = np.array_split(rng.permutation(heads), blocks)
    return [Equations.sample(seen, rows, max(total // blocks, 32), rng, group) for group in groups]


class Interference:
    """Mean and covariance of what the positions still leave open, factorised, with the whitened residual.

    Args:
        equations: a block of equations.
        beliefs: what is held of every position.
        rng: draws the columns that estimate the covariance.
        dtype: of the factorisation.
    """

    def __init__(
        self, equations: Equations, beliefs: Sequence[Belief], rng: np.random.Generator, dtype: torch.dtype
    ) -> None:
        self._equations, self._dtype = equations, dtype
        size = len(equations)
        covariance = torch.zeros(size, size, dtype=dtype)
        rest = equations.target.double()
        self._means: list[Tensor] = []
        self.flops = size**3 / 3
        for belief in beliefs:
            columns = equations.columns(belief.candidates)
            mean = (columns * belief.weights).sum(1, keepdim=True)
            self._means.append(mean)
            rest = rest - mean[:, 0].double()
            if not belief.known:
                spread = _spread(columns, mean, belief.weights, rng).to(dtype)
                covariance.addmm_(spread, spread.T)
                self.flops += 2.0 * size**2 * spread.shape[1]
        covariance.diagonal().add_(equations.noise.to(dtype).square() + torch.finfo(dtype).tiny)
        self._factor = _factorise(covariance, _RIDGE[dtype])
        self.residual = self._whiten(rest[:, None])[:, 0]
        self.power = float(self.residual.square().mean())

    def _whiten(self, columns: Tensor) -> Tensor:
        white: Tensor = torch.linalg.solve_triangular(self._factor, columns.to(self._dtype), upper=False)
        return white

    def score(self, position: int, candidates: Candidates) -> Tensor:
        """Log-likelihood of each candidate at a position, up to a constant of the position ``[tokens]``.

        A block whose residual is larger than its covariance explains counts for less.
        """
        white = self.white(position, candidates)
        score = white.T @ self.residual - white.square().sum(0) / 2
        return (score / max(1.0, self.power)).float()

    def white(self, position: int, candidates: Candidates) -> Tensor:
        """Whitened columns of candidates at a position, less the expected one ``[equations, tokens]``."""
        self.flops += float(len(self._equations) ** 2 * len(candidates))
        return self._whiten(self._equations.columns(candidates) - self._means[position])


def detect(
    seen: Measurements,
    rows: Rows,
    candidates: Sequence[Candidates],
    bias: Sequence[Tensor] | None,
    rng: np.random.Generator,
    *,
    work: float,
    limit: int,
) -> Iterator[Detection]:
    """Weigh every open position's candidates, round by round, until their beliefs settle.

    The first round scores all candidates; the next ones a shortlist, whose doubt is all that interferes. Where the
    residual shows that the beliefs are sure of something wrong, those of the first round are softened, and in the end
    all candidates are scored again.

    Args:
        seen: the measurements.
        rows: their masses and tolerances.
        candidates: possible tokens of each position; single ones count as known.
        bias: log prior over each position's candidates, or None.
        rng: draws equations and covariance samples.
        work: multiply-adds one round may take; fewer equations are drawn for more candidates.
        limit: most equations.
    """
    prior = [torch.zeros(len(c)) for c in candidates] if bias is None else bias
    beliefs = [Belief(c, _soft(b)) for c, b in zip(candidates, prior, strict=True)]
    short, temperature = False, _SOFTNESS
    seen_all: dict[int, Tensor] = {}
    for _ in range(_ROUNDS):
        pool = [belief.candidates for belief in beliefs] if short else list(candidates)
        scores, power, spent = _score(seen, rows, beliefs, pool, rng, work, limit)
        if bias is not None:
            scores = {p: score + _among(bias[p], candidates[p], pool[p]) for p, score in scores.items()}
        found = _decide(pool, scores), sum(len(pool[p]) for p in scores), spent
        if not short:
            seen_all = scores
        elif power > _INCONSISTENT:  # too sure of something wrong: back to the round that saw everything, with doubt
            temperature *= _SOFTER
            pool, scores = list(candidates), seen_all
        beliefs = _believe(pool, scores, temperature)
        yield Detection(found[0], beliefs, *found[1:])
        if short and power < _SETTLED:
            return
        short = temperature < _SOFTEST
        temperature = temperature if short else _SOFTNESS


def _score(
    seen: Measurements,
    rows: Rows,
    beliefs: Sequence[Belief],
    pool: Sequence[Candidates],
    rng: np.random.Generator,
    work: float,
    limit: int,
) -> tuple[dict[int, Tensor], float, float]:
    """Scores of the open positions' candidates, the largest residual power, and the flops."""
    scores = {p: torch.zeros(len(c)) for p, c in enumerate(pool) if len(c) > 1}
    dtype = torch.float64 if sum(map(len, pool)) <= _PRECISE else torch.float32
    power, flops = 0.0, 0.0
    for equations in equations_for(seen, rows, pool, work, limit, rng):
        interference = Interference(equations, beliefs, rng, dtype)
        for position, score in scores.items():
            score += interference.score(position, pool[position])
        power = max(power, interference.power)
        flops += interference.flops
    return scores, power, flops


def _believe(pool: Sequence[Candidates], scores: dict[int, Tensor], temperature: float) -> list[Belief]:
    """Soft beliefs over the best of each position's candidates, ``_SHORT`` of them in all."""
    keep = _share(sorted(len(pool[p]) for p in scores), _SHORT)
    beliefs = [Belief(c, torch.ones(1)) for c in pool]
    for position, score in scores.items():
        best = score.topk(min(keep, score.numel()))
        beliefs[position] = Belief(pool[position].keep(best.indices), _soft(best.values / temperature))
    return beliefs


def _share(sizes: Sequence[int], total: int) -> int:
    """The largest cap on every size that leaves at most ``total`` together, at least 16."""
    left, cap = total, 16
    for index, size in enumerate(sizes):
        cap = max(16, left // (len(sizes) - index))
        if size > cap:
            return cap
        left -= size
    return max(cap, *sizes, 16)


def _deviation(seen: Measurements, rows: Rows) -> Tensor:
    """Relative standard deviation of what a row's mass and averages are read with ``[rows]``."""
    deviation: Tensor = rows.tolerance - (SIGMAS - 1) * seen.disturbance.log_weight
    return deviation


def _factorise(covariance: Tensor, ridge: float) -> Tensor:
    """Lower Cholesky factor of a covariance ``[e, e]``, whose diagonal is loaded until it exists.

    Raises:
        FloatingPointError: where the covariance holds what is no number, which no load mends.
    """
    load = ridge * float(covariance.diagonal().mean())
    while math.isfinite(load):
        covariance.diagonal().add_(load)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return factor
        load *= 10
    raise FloatingPointError("the covariance of what the open positions leave is not finite")


def _soft(score: Tensor) -> Tensor:
    spread: Tensor = (1 - _DOUBT) * torch.softmax(score, 0) + _DOUBT / score.numel()
    return spread


def _spread(columns: Tensor, mean: Tensor, weights: Tensor, rng: np.random.Generator) -> Tensor:
    """A square root of the columns' covariance ``[equations, columns or fewer]``."""
    if columns.shape[1] <= _SAMPLE:
        return (columns - mean) * weights.sqrt()
    share = weights.double().numpy()
    chosen = rng.choice(columns.shape[1], _SAMPLE, p=share / share.sum())
    return (columns[:, torch.from_numpy(chosen)] - mean) / math.sqrt(_SAMPLE)


def _among(bias: Tensor, candidates: Candidates, pool: Candidates) -> Tensor:
    """A prior over ``candidates``, read at those that are still in the pool."""
    everywhere: Tensor = bias.new_zeros(int(candidates.ids.max()) + 1)
    everywhere[candidates.ids] = bias
    read: Tensor = everywhere[pool.ids]
    return read


def _decide(pool: Sequence[Candidates], scores: dict[int, Tensor]) -> list[Decision]:
    decisions = []
    for position, score in scores.items():
        best = score.topk(2)
        token = int(pool[position].ids[best.indices[0]])
        decisions.append((float(best.values[0] - best.values[1]), position, token))
    return sorted(decisions, reverse=True)


def polish(equations: Equations, beliefs: Sequence[Belief], rng: np.random.Generator, sweeps: int) -> list[int]:
    """Improve the most likely assignment: coordinate sweeps, then joint moves of the least certain pairs.

    Args:
        equations: the linear measurements.
        beliefs: tokens that may be chosen at each position, with their probabilities.
        rng: draws the covariance sample.
        sweeps: most sweeps over all positions.

    Returns:
        Token ids with whitened residual no larger than before.
    """
    flat = [Belief(b.candidates, torch.full((len(b.candidates),), 1 / len(b.candidates))) for b in beliefs]
    interference = Interference(equations, flat, rng, torch.float64)
    white = [interference.white(position, belief.candidates) for position, belief in enumerate(flat)]
    chosen = [int(belief.weights.argmax()) for belief in beliefs]
    residual = interference.residual - torch.stack([w[:, i] for w, i in zip(white, chosen, strict=True)]).sum(0)
    for _ in range(sweeps):
        residual, margins, moved = _sweep(white, chosen, residual)
        if not moved:
            residual, moved = _move_pairs(white, chosen, residual, margins)
            if not moved:
                break
    return [int(belief.candidates.ids[i]) for belief, i in zip(beliefs, chosen, strict=True)]


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
