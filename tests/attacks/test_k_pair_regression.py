"""The secret part of a matrix is solved from as few plaintext pairs as it has rank, and never from masked traffic."""

from functools import cache

import numpy as np
import pytest
import torch
from exposed import RANK, Split, boundary_view, split_model, strict_view
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.exposure import Protected
from attacks.weights.k_pair_regression import KPairRegression, solved
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import WeightGuess
from smd_research.mechanisms.decomposition.splits import split
from smd_research.models import sources

TEXT = tuple(range(7, 150))  # more rows than any input has entries


@cache
def model(family: str = "llama", kind: str = "svd", bits: int | None = None) -> Split:
    return split_model(sources.random(family), kind, bits=bits)  # type: ignore[arg-type]


def attacked(split_one: Split, view: AdversaryView, **options: object) -> WeightGuess:
    attack = KPairRegression(**options)  # type: ignore[arg-type]
    attack.fit(split_one.public)
    return attack.restore([view], np.random.default_rng(0))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_as_many_pairs_as_the_rank_solve_square_and_tall_matrices(family: str) -> None:
    one = model(family)
    guess = attacked(one, boundary_view(one, TEXT), pairs=RANK)
    assert one.error(guess, "tall") < 1e-4
    assert one.error(guess, "square") < 1e-4
    assert one.error(guess, "wide") > 0.1, "its rows may lie in a larger space"
    assert guess.facts == {"pairs_seen": len(TEXT), "pairs_used": RANK}


def test_one_pair_fewer_than_the_rank_does_not() -> None:
    one = model()
    guess = attacked(one, boundary_view(one, TEXT), pairs=RANK - 1)
    assert one.error(guess, "tall") > 0.1
    assert guess.certified is False


def test_generic_regression_needs_as_many_pairs_as_inputs() -> None:
    one = model()
    view = boundary_view(one, TEXT)
    assert one.error(attacked(one, view, method="generic", pairs=RANK)) > 0.5
    assert one.error(attacked(one, view, method="generic", pairs=60), "tall") > 0.05, "64 inputs"
    assert one.error(attacked(one, view, method="generic", pairs=70), "tall") < 1e-3
    proved = attacked(one, view, method="generic", pairs=135)
    assert one.error(proved) < 1e-2
    assert proved.certified


def test_a_wide_matrix_falls_to_n_minus_m_plus_k_pairs() -> None:
    one = model()
    guess = attacked(one, boundary_view(one, TEXT), pairs=64 + RANK)  # down: 64 x 128
    assert one.error(guess, "wide") < 1e-3
    assert guess.certified


def test_rounded_weights_blur_the_null_spaces() -> None:
    one = model(bits=16)
    assert 1e-5 < one.error(attacked(one, boundary_view(one, TEXT), pairs=RANK), "tall") < 0.05


def test_a_filled_hole_leaves_only_generic_regression() -> None:
    one = model(kind="svd_fill")
    view = boundary_view(one, TEXT)
    assert one.error(attacked(one, view, pairs=2 * RANK)) > 0.5
    assert one.error(attacked(one, view, method="generic")) < 1e-2


@pytest.mark.parametrize("method", ["null_space", "generic"])
@pytest.mark.parametrize("pairs", [RANK, None])
def test_masked_traffic_tells_nothing(method: str, pairs: int | None) -> None:
    """Negative control: an estimate from uniform masks is no nearer than none at all."""
    one = model(bits=16)
    guess = attacked(one, strict_view(one, TEXT[:40]), method=method, pairs=pairs)
    assert one.error(guess) > 0.99
    assert not guess.certified


def test_another_models_pairs_tell_nothing() -> None:
    """Negative control: the same attack on the pairs of other weights."""
    one, other = model(), split_model(sources.random("llama", seed=1))
    assert one.error(attacked(one, boundary_view(other, TEXT), pairs=RANK)) > 0.9


def test_equal_inputs_count_once() -> None:
    one = model()
    guess = attacked(one, boundary_view(one, (9, 9, 9, 8)))
    assert guess.facts["pairs_seen"] == 2, "layer 0 sees two tokens"


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_any_matrix_is_solved_from_enough_pairs(m: int, n: int, rank: int, seed: int) -> None:
    rank = min(rank, m, n)
    rng = np.random.default_rng(seed)
    parts = split(torch.from_numpy(rng.standard_normal((m, n))), rank, "svd", rng)
    secret = (parts.left @ parts.right).double()
    target = Protected("w", rank, parts.exposed.double(), 0, slice(0, m))
    x = torch.from_numpy(rng.standard_normal((max(n - m, 0) + rank + 2, n)))
    found, _ = solved(target, x, x @ secret.T, "null_space", None)
    assert (found - secret).norm() < 1e-3 * secret.norm()


def test_what_cannot_be_run_is_named() -> None:
    one = model()
    with pytest.raises(ConfigError, match="method"):
        KPairRegression(method="magic")
    with pytest.raises(ConfigError, match="pairs"):
        KPairRegression(pairs=0)
    with pytest.raises(NotApplicableError, match="none was seen"):
        attacked(one, AdversaryView((), frozenset(), 0, ()))
