"""What the exposed part of a matrix tells of the directions that were taken out of it.

Found while the papers on SLIP (arXiv 2407.10886, 2510.24999) were read; neither is known to discuss it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of


def null_space(exposed: Tensor, rank: int) -> Tensor:
    """Directions that an exposed part ``[m, n]`` sends to zero, or nearly where it was rounded.

    Args:
        exposed: as the device stores it.
        rank: number ``k`` of directions taken out; public.

    Returns:
        Orthonormal columns ``[n, max(n - m, 0) + k]``: where the matrix is wide, its own null space is among them.
    """
    m, n = exposed.shape
    vt: Tensor = torch.linalg.svd(exposed.detach().double(), full_matrices=n > m).Vh
    return vt[min(m, n) - rank :].T


def hidden_directions(exposed: Tensor, rank: int) -> tuple[Tensor | None, Tensor | None]:
    """Estimates the directions that were taken out of an exposed part: those that it does least in.

    Top components of ``W`` leave a hole: ``exposed @ V_k = 0`` and ``U_k^T @ exposed = 0``. The hole shows where the
    matrix has no other null space, that is on the input side of a matrix with at least as many rows as columns, and on
    the output side of one with at most as many.

    Args:
        exposed: ``[m, n]`` as the device stores it, rounded or not.
        rank: number ``k`` of directions taken out; public.

    Returns:
        Orthonormal columns of the output side ``[m, k]`` and of the input side ``[n, k]``; None for a side that shows
        nothing.
    """
    m, n = exposed.shape
    return null_space(exposed.T, rank) if m <= n else None, null_space(exposed, rank) if m >= n else None


def overlap(one: Tensor, other: Tensor) -> float:
    """How far two subspaces are the same: mean squared cosine of their principal angles, 0 to 1.

    A random subspace of ``k`` among ``n`` dimensions scores ``k / n``.

    Args:
        one: orthonormal columns ``[n, k]``.
        other: orthonormal columns ``[n, k]``.
    """
    return float((one.double().T @ other.double()).square().sum() / one.shape[1])


def overlaps(whole: Bundle, held: Bundle, ranks: Mapping[str, int]) -> dict[str, float]:
    """How much of each layer's secret directions the device can read off what it stores: mean over the sides it shows.

    Args:
        whole: the true model; for who measures, never for an attack.
        held: the model as the device stores it.
        ranks: secret components by module name; layers with none are left out.

    Returns:
        0 to 1 by module name.
    """
    layers, stored = linear_layers(whole), linear_layers(held)
    found = {}
    for name, rank in ranks.items():
        if rank:
            truth = torch.linalg.svd(weight_of(layers[name]).detach().double(), full_matrices=False)
            sides = zip(hidden_directions(weight_of(stored[name]), rank), (truth.U, truth.Vh.T), strict=True)
            shown = [overlap(basis[:, :rank], side) for side, basis in sides if side is not None]
            found[name] = sum(shown) / len(shown)
    return found
