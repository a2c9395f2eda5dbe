"""Solves the secret part of a matrix from what went into it and what came out (SLIP without masks between blocks).

Where the device runs its part in the clear and asks the trusted side for the rest, every question is a plaintext pair
``(x, W^C x)``. Least squares needs as many pairs as ``x`` has entries. The null spaces of the exposed part shorten
that: ``W^C = A V^T`` with ``V`` known, so ``k`` pairs solve a square or tall matrix, ``n - m + k`` a wide one (own
analysis; SLIP, arXiv 2407.10886, answers with masks, under which there are no pairs).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor

from attacks.base import WeightAttack
from attacks.exposure import Protected, protected, stored
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import LowRankInput, LowRankOutput, MaskedInput, MaskedOutput
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.mechanisms.decomposition.hidden_subspace import null_space
from smd_research.mechanisms.integers.field import FIELDS, Field
from smd_research.mechanisms.integers.parameters import ProtocolParameters

METHODS = ("null_space", "generic")
_PROVED = 1e-3  # largest relative error of an answer that the solution predicts


@dataclass(frozen=True, repr=False)
class ObservedPairs:
    """Inputs ``[rows, n]`` of one product and the answers ``[rows, m]``, float64, no input twice."""

    x: Tensor
    y: Tensor

    @classmethod
    def distinct(cls, x: Tensor, y: Tensor) -> "ObservedPairs":
        """Of equal inputs the first: the rest say nothing new."""
        _, first = np.unique(x.numpy(), axis=0, return_index=True)
        kept = torch.from_numpy(np.sort(first))
        return cls(x[kept], y[kept])


class KPairRegression(WeightAttack):
    """Regression of the secret part on plaintext pairs; where there are none, on the masked traffic in their place.

    Its check is how well the solution predicts answers it was not fitted to, so it needs pairs beyond those it uses.

    Args:
        method: ``null_space`` looks for the rows of ``W^C`` in the null space of the exposed part and, with pairs to
            spare, next to it; ``generic`` looks anywhere.
        pairs: how many of each product to use, of those seen the most independent; None uses all (and checks on them).

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(self, method: str = "null_space", pairs: int | None = None) -> None:
        if method not in METHODS:
            raise ConfigError(f"attack.method={method} is unknown: use one of {', '.join(METHODS)}")
        if pairs is not None and pairs < 1:
            raise ConfigError(f"attack.pairs={pairs} is out of range: give at least 1, or null for all")
        self._method = method
        self._pairs = pairs

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Reconstruct every protected matrix.

        Raises:
            NotApplicableError: when no product was ever asked for.
        """
        targets = protected(self.public)
        seen = _plain(views) or _masked(views, self.public.parameters_of(ProtocolParameters).field)
        if not seen:
            raise NotApplicableError("needs inputs and answers of a protected product: none was seen")
        restored, errors = {}, []
        for target in targets:
            x, y = seen[target.product].x, seen[target.product].y[:, target.rows]
            secret, left_out = solved(target, x, y, self._method, self._pairs)
            restored[target.name] = target.exposed + secret
            errors.append(_error(secret, x[left_out], y[left_out]))
        available = min(len(seen[target.product].x) for target in targets)
        used = min(self._pairs or available, available)
        residual = max(errors)
        return WeightGuess(
            stored(self.public, restored),
            certified=residual < _PROVED if used < available else None,
            residual=residual,
            spent=Spent(steps=len(targets)),
            facts={"pairs_seen": float(available), "pairs_used": float(used)},
        )


def solved(target: Protected, x: Tensor, y: Tensor, method: str, pairs: int | None) -> tuple[Tensor, Tensor]:
    """The secret part that explains answers ``y [rows, m]`` to ``x [rows, n]``, of least norm if there are several.

    Returns:
        ``W^C [m, n]``, and which pairs to check it on: those it was not fitted to, all where there are none.
    """
    inside = _searched(target, method, min(pairs or len(x), len(x)))
    coordinates = x @ inside
    order = torch.arange(len(x)) if pairs is None else _most_independent(coordinates)
    used, left_out = order[:pairs], order[pairs or len(order) :]
    found = _least_squares(coordinates[used], y[used])
    return (inside @ found).T, left_out if len(left_out) else order


def _searched(target: Protected, method: str, pairs: int) -> Tensor:
    """Orthonormal columns ``[n, d]`` in whose span the rows of the secret part are looked for.

    Rounding blurs the null space into the directions next to it, those with the smallest singular values: they are
    looked at too, as far as there are two pairs for each direction.
    """
    m, n = target.exposed.shape
    if method == "generic":
        return torch.eye(n, dtype=torch.float64)
    affordable = pairs // 2 - max(n - m, 0)
    return null_space(target.exposed, min(max(target.rank, affordable), m, n))


def _most_independent(rows: Tensor) -> Tensor:
    """All rows in order: each the one that lies farthest from the span of those before it (pivoted QR)."""
    _, order = qr(rows.T.numpy(), mode="r", pivoting=True)
    return torch.from_numpy(order.astype(np.int64))


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.lstsq(x, y, driver="gelsd").solution
    return solution


def _error(secret: Tensor, x: Tensor, y: Tensor) -> float:
    return float((x @ secret.T - y).norm() / y.norm().clamp(min=1e-300))


def _plain(views: Sequence[AdversaryView]) -> dict[int, ObservedPairs]:
    """Pairs in the clear by product, in the order they passed."""
    found: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for view in views:
        asked: dict[int, Tensor] = {}
        for _, message in view.messages:
            if isinstance(message, LowRankInput):
                asked[message.product] = message.x
            elif isinstance(message, LowRankOutput):
                found.setdefault(message.product, []).append((asked.pop(message.product), message.y))
    return {number: _joined(pairs) for number, pairs in found.items()}


def _masked(views: Sequence[AdversaryView], field: str) -> dict[int, ObservedPairs]:
    """Masked inputs and answers, as if they were pairs, in units of the prime."""
    ring = FIELDS[field]
    found: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for view in views:
        asked: dict[tuple[int, int], Tensor] = {}
        for _, message in view.messages:
            if isinstance(message, MaskedInput):
                asked[message.product, message.use] = message.x
            elif isinstance(message, MaskedOutput):
                x = asked.pop((message.product, message.use))
                found.setdefault(message.product, []).append((_real(x, ring), _real(message.y, ring)))
    return {number: _joined(pairs) for number, pairs in found.items()}


def _real(values: Tensor, ring: Field) -> Tensor:
    """Residues as numbers in units of the prime; what passed in floats stays."""
    return values if values.is_floating_point() else ring.lift(values) / ring.prime


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> ObservedPairs:
    return ObservedPairs.distinct(*(torch.cat(side).double() for side in zip(*pairs, strict=True)))
