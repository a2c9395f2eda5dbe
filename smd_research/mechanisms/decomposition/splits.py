"""Additive splits of a weight matrix: a secret part of low rank, and the rest, which is exposed.

``W = left @ right + exposed``. SLIP (arXiv 2407.10886) keeps the top singular components ``U_k S_k V_k^T`` secret; the
other splits are its neighbours and its controls. All are computed in float64, before anything is rounded.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import ConfigError

Kind = Literal["svd", "svd_fill", "random_lowrank", "none", "bottom", "random_directions"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, repr=False)
class SplitMatrix:
    """A matrix in two parts, float32.

    Attributes:
        left: secret ``[m, k]``.
        right: secret ``[k, n]``; its rows are orthonormal.
        exposed: ``[m, n]``.
    """

    left: Tensor
    right: Tensor
    exposed: Tensor

    @property
    def rank(self) -> int:
        """Number ``k`` of secret components."""
        return self.right.shape[0]

    def __repr__(self) -> str:
        return f"SplitMatrix({tuple(self.exposed.shape)}, rank={self.rank})"


def split(weight: Tensor, rank: int, kind: Kind, rng: np.random.Generator) -> SplitMatrix:
    """Divide a matrix.

    ``svd``
        secret: the top ``k`` singular components (SLIP)
    ``svd_fill``
        the same, but the hole they leave is filled: ``exposed = W - U_k (S_k - R) V_k^T`` with a secret core ``R``
        between random orthonormal bases, its singular values drawn between ``sigma_{k+1}`` and the median of those that
        stay (reconstructed; a Gaussian core would leave one direction in ``k`` all but empty, and that one shows)
    ``random_lowrank``
        secret: ``k`` random directions on either side with the singular values ``sigma_1 .. sigma_k``: a mask of the
        same size that has nothing to do with the matrix
    ``none``
        nothing is secret, whatever ``k``
    ``bottom``
        control: the ``k`` smallest singular components
    ``random_directions``
        control: what the matrix does to ``k`` random input directions

    Args:
        weight: ``[m, n]`` of any floating type.
        rank: ``k``; 0 keeps nothing secret.
        kind: which split.
        rng: for the secret choices.

    Raises:
        ConfigError: for a rank that the matrix does not have, or an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"split={kind} is unknown: use one of {', '.join(KINDS)}")
    most = min(weight.shape)
    if not 0 <= rank <= most:
        raise ConfigError(
            f"rank {rank} of a {weight.shape[0]} x {weight.shape[1]} matrix: it has {most} singular values; "
            f"give a rank of 0 to {most}"
        )
    exact = weight.detach().double()
    if rank == 0 or kind == "none":
        return _parts(exact, exact[:, :0], exact[:0])
    return _parts(exact, *_SECRETS[kind](exact, rank, rng))


def _parts(weight: Tensor, left: Tensor, right: Tensor) -> SplitMatrix:
    exposed = weight - left @ right
    return SplitMatrix(*(part.float().contiguous() for part in (left, right, exposed)))


def _svd(weight: Tensor, rank: int, _rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * s[:rank], vt[:rank]


def _svd_fill(weight: Tensor, rank: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    staying = s[rank:] if rank < len(s) else s[-1:]
    low, high = staying.median(), staying[0]
    sizes = low + (high - low) * torch.from_numpy(rng.random(rank)).to(weight)
    core = (_orthonormal(rng, rank, rank, weight) * sizes) @ _orthonormal(rng, rank, rank, weight)
    return u[:, :rank] @ (s[:rank].diag() - core), vt[:rank]


def _random_lowrank(weight: Tensor, rank: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    s = torch.linalg.svdvals(weight)[:rank]
    rows, columns = (_orthonormal(rng, size, rank, weight) for size in weight.shape)
    return rows * s, columns.T


def _bottom(weight: Tensor, rank: int, _rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, -rank:] * s[-rank:], vt[-rank:]


def _random_directions(weight: Tensor, rank: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    directions = _orthonormal(rng, weight.shape[1], rank, weight)
    return weight @ directions, directions.T


_SECRETS = {
    "svd": _svd,
    "svd_fill": _svd_fill,
    "random_lowrank": _random_lowrank,
    "bottom": _bottom,
    "random_directions": _random_directions,
}


def _normal(rng: np.random.Generator, shape: tuple[int, int], like: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).to(like)


def _orthonormal(rng: np.random.Generator, size: int, count: int, like: Tensor) -> Tensor:
    """``count`` random orthonormal columns ``[size, count]``."""
    basis: Tensor = torch.linalg.qr(_normal(rng, (size, count), like)).Q
    return basis


def energy_rank(weight: Tensor, energy: float) -> int:
    """The smallest ``k`` whose top components hold a share ``energy`` of the squared singular values.

    Raises:
        ConfigError: for a share outside 0 .. 1.
    """
    if not 0 < energy <= 1:
        raise ConfigError(f"energy={energy}: give a share above 0 and at most 1")
    held = torch.linalg.svdvals(weight.detach().double()).square().cumsum(0)
    # The last partial sum may fall a rounding short of the total it is.
    return int((held < energy * held[-1] * (1 - 1e-12)).sum()) + 1
