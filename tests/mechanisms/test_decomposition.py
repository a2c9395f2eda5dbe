"""Splits of a matrix: the parts add up, the hole is where it should be, and ranks follow the energy."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.decomposition.hidden_subspace import hidden_directions, overlap
from smd_research.mechanisms.decomposition.splits import Kind, energy_rank, split

KINDS = get_args(Kind)
SHAPES = [(12, 12), (20, 9), (9, 20)]


def matrix(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """A matrix whose singular values fall by a quarter each."""
    rng = generator(seed, "matrix", *shape)
    m, n = shape
    u, v = (np.linalg.qr(rng.standard_normal((size, min(shape))))[0] for size in (m, n))
    return torch.from_numpy(u * 0.75 ** np.arange(min(shape)) @ v.T).float()


def rng() -> np.random.Generator:
    return generator(0, "split")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(SHAPES), st.integers(0, 9), st.integers(0, 5))
def test_parts_add_up(kind: Kind, shape: tuple[int, int], rank: int, seed: int) -> None:
    weight = matrix(shape, seed)
    parts = split(weight, rank, kind, rng())
    kept = 0 if kind == "none" else rank
    assert (parts.left.shape, parts.right.shape) == ((shape[0], kept), (kept, shape[1]))
    torch.testing.assert_close(parts.left @ parts.right + parts.exposed, weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(parts.right @ parts.right.T, torch.eye(kept), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_top_components_leave_a_hole(shape: tuple[int, int]) -> None:
    weight = matrix(shape)
    parts = split(weight, 3, "svd", rng())
    assert (parts.exposed @ parts.right.T).abs().max() < 1e-6
    s = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.svdvals(parts.exposed)[: len(s) - 3], s[3:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_hole_is_like_its_surroundings(shape: tuple[int, int]) -> None:
    weight = matrix(shape)
    parts = split(weight, 3, "svd_fill", rng())
    rest = torch.linalg.svdvals(weight)[3:]
    filled = torch.linalg.svdvals(parts.exposed @ parts.right.T)
    assert (filled <= rest[0] + 1e-6).all()
    assert (filled >= rest.median() - 1e-6).all()
    assert overlap(parts.right.T, split(weight, 3, "svd", rng()).right.T) > 1 - 1e-6


def test_controls_remove_little() -> None:
    weight = matrix((12, 12))
    sizes = {
        kind: torch.linalg.matrix_norm(weight - split(weight, 3, kind, rng()).exposed).item()
        for kind in ("svd", "random_directions", "bottom")
    }
    assert sizes["bottom"] < 0.2 * sizes["random_directions"] < 0.2 * sizes["svd"]


def test_a_random_mask_is_as_large_as_the_top_components() -> None:
    weight = matrix((20, 9))
    masks = [weight - split(weight, 3, kind, rng()).exposed for kind in ("svd", "random_lowrank")]
    sizes = [torch.linalg.svdvals(mask)[:3] for mask in masks]
    torch.testing.assert_close(sizes[0], sizes[1], atol=1e-5, rtol=0)
    assert overlap(*(torch.linalg.svd(mask).Vh[:3].T for mask in masks)) < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_rank_is_bounded(kind: Kind) -> None:
    assert split(matrix((9, 20)), 0, kind, rng()).rank == 0
    split(matrix((9, 20)), 9, kind, rng())
    for rank in (-1, 10):
        with pytest.raises(ConfigError, match="9 singular values"):
            split(matrix((9, 20)), rank, kind, rng())


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ConfigError, match="svd_fill"):
        split(matrix((9, 20)), 1, "qr", rng())  # type: ignore[arg-type]


def test_half_precision_is_split_exactly() -> None:
    """Top components are taken out in float64, before anything is rounded."""
    weight = matrix((12, 12)).half()
    parts = split(weight, 3, "svd", rng())
    assert parts.exposed.dtype == torch.float32
    assert (parts.exposed @ parts.right.T).abs().max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.floats(0.05, 1))
def test_energy_rank_is_the_smallest(shape: tuple[int, int], energy: float) -> None:
    weight = matrix(shape)
    k = energy_rank(weight, energy)
    squares = torch.linalg.svdvals(weight.double()).square()
    share = (squares.cumsum(0) / squares.sum()).tolist()
    assert share[k - 1] >= energy - 1e-9
    assert k == 1 or share[k - 2] < energy


def test_energy_outside_its_range() -> None:
    with pytest.raises(ConfigError, match="share"):
        energy_rank(matrix((9, 20)), 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hole_shows_on_the_short_side(shape: tuple[int, int]) -> None:
    weight, m, n = matrix(shape), *shape
    truth = torch.linalg.svd(weight.double(), full_matrices=False)
    shown = hidden_directions(split(weight, 3, "svd", rng()).exposed, 3)
    assert [side is not None for side in shown] == [m <= n, m >= n]
    for side, basis in zip(shown, (truth.U, truth.Vh.T), strict=True):
        if side is not None:
            assert overlap(basis[:, :3], side) > 1 - 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_hole_shows_little(shape: tuple[int, int]) -> None:
    weight = matrix(shape)
    truth = torch.linalg.svd(weight.double(), full_matrices=False)
    shown = hidden_directions(split(weight, 3, "svd_fill", rng()).exposed, 3)
    for side, basis in zip(shown, (truth.U, truth.Vh.T), strict=True):
        if side is not None:
            assert overlap(basis[:, :3], side) < 0.5
