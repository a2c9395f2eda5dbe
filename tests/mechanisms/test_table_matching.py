"""Which row of a public table became which of a shaken one: found for every affine map, not for a stranger's table."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.embedding_matching import table_matching
from smd_research.mechanisms.embedding_matching.table_maps import (
    Neighbours,
    fit_map,
    neighbours,
    neighbours_in_double,
)
from smd_research.mechanisms.embedding_matching.table_matching import METHODS, RowPairs, TableMatch, match_tables
from smd_research.mechanisms.embedding_matching.table_seeds import profile
from smd_research.models import sources

Table = NDArray[np.float64]
Shake = Callable[[Table, np.random.Generator], Table]


def addv_inflate(table: Table, rng: np.random.Generator) -> Table:
    width = table.shape[1]
    added = table + table.std() * rng.standard_normal(width)
    inflated: Table = added * (1 + 0.5 * rng.uniform(-1, 1, width))
    return inflated


def tilt(table: Table, rng: np.random.Generator, strength: float = 1.0) -> Table:
    width = table.shape[1]
    generator_of = rng.standard_normal((width, width))
    turned: Table = table @ expm(strength * (generator_of - generator_of.T) / np.sqrt(2 * width))
    return turned


def any_rotation(table: Table, rng: np.random.Generator) -> Table:
    return tilt(table, rng, 5.0)


def any_affine(table: Table, rng: np.random.Generator) -> Table:
    width = table.shape[1]
    mapped: Table = table @ rng.standard_normal((width, width)) / np.sqrt(width) + rng.standard_normal(width)
    return mapped


def shaken(table: Table, shake: Shake, noise: float = 0.0, seed: int = 0) -> tuple[Table, NDArray[np.int64]]:
    """A shaken table with its rows permuted, and the public row of each."""
    rng = generator(seed, "shaken")
    changed = shake(table, rng) + noise * table.std() * rng.standard_normal(table.shape)
    order = rng.permutation(len(table))
    return changed[order], order


@cache
def clustered(rows: int = 600, width: int = 32) -> Table:
    """Rows in groups, with a decaying spectrum and norms of a heavy tail, as trained tables have them."""
    rng = generator(0, "clustered")
    centres = rng.standard_normal((40, width))
    rows_ = centres[rng.integers(0, 40, rows)] + 0.7 * rng.standard_normal((rows, width))
    found: Table = rows_ * np.exp(0.4 * rng.standard_normal((rows, 1))) * np.linspace(2, 0.3, width) + 0.2
    turned: Table = found @ np.linalg.qr(rng.standard_normal((width, width)))[0]
    return turned


def recovered(match: TableMatch, truth: NDArray[np.int64]) -> float:
    return float((match.mapping == truth).mean())


@pytest.mark.parametrize(
    ("method", "shake"),
    [
        ("zscore", addv_inflate),
        ("rotation", tilt),
        ("rotation", any_rotation),
        ("whitened", addv_inflate),
        ("whitened", any_rotation),
        ("whitened", any_affine),
        ("auto", any_affine),
    ],
)
def test_every_noiseless_shaking_comes_undone_and_proves_it(method: str, shake: Shake) -> None:
    table, truth = shaken(clustered(), shake)
    found = match_tables(clustered(), table, method)
    assert recovered(found, truth) == 1
    assert found.exact
    assert found.residual < 1e-6


@pytest.mark.parametrize("shake", [addv_inflate, tilt, any_affine])
@pytest.mark.parametrize("told", [0, 40])
def test_a_map_found_on_a_stride_of_the_rows_matches_them_all(
    shake: Shake, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, truth = shaken(clustered(), shake)
    searched: list[int] = []

    def counted(a: Table, b: Table) -> Neighbours:
        searched.append(len(b))
        return neighbours(a, b)

    monkeypatch.setattr(table_matching, "_SAMPLE", 200)
    monkeypatch.setattr(table_matching, "neighbours", counted)
    known = generator(2, "known").permutation(len(truth))[:told]
    found = match_tables(clustered(), table, known=RowPairs(known, truth[known]))
    assert recovered(found, truth) == 1
    assert found.exact
    assert len(found.sure) == len(truth)
    assert max(searched) <= 200 + told, "only the last pass searches for every row"


def test_a_stride_of_a_stranger_s_table_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_matching, "_SAMPLE", 200)
    stranger = generator(1, "stranger").standard_normal(clustered().shape)
    found = match_tables(clustered(), stranger)
    assert not found.exact
    assert recovered(found, np.arange(len(stranger))) < 0.02


def test_a_search_in_single_precision_is_mended_where_it_cannot_tell() -> None:
    """Rows 1e-6 apart, far from the origin: single precision confuses them, double does not."""
    rows = np.repeat(generator(4, "rows").standard_normal((40, 16)), 2, axis=0)
    rows[1::2] += 1e-6
    rows += 5.0
    order = generator(4, "order").permutation(len(rows))
    single = neighbours(rows.astype(np.float32), rows[order].astype(np.float32))
    found, exact = neighbours_in_double(rows, rows[order]), neighbours(rows, rows[order])
    assert (single.nearest != order).any()
    np.testing.assert_array_equal(found.nearest, order)
    np.testing.assert_array_equal(found.following, exact.following)
    np.testing.assert_allclose(found.second, exact.second, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_s_table_is_matched_by_chance_and_not_certified(method: str) -> None:
    """Negative control."""
    stranger = generator(1, "stranger").standard_normal(clustered().shape)
    found = match_tables(clustered(), stranger, method)
    assert not found.exact
    assert recovered(found, np.arange(len(stranger))) < 0.02
    assert 0.4 < found.vote < 0.6, "columns that had no part in a choice do not confirm it"


def test_recovery_falls_with_noise_and_known_pairs_hold_it() -> None:
    blind, told = [], []
    for noise in (0.0, 0.25, 1.0, 4.0):
        table, truth = shaken(clustered(), any_rotation, noise)
        known = generator(2, "known").permutation(len(truth))[:60]
        blind.append(recovered(match_tables(clustered(), table, rounds=10), truth))
        pairs = RowPairs(known, truth[known])
        told.append(recovered(match_tables(clustered(), table, known=pairs, rounds=10), truth))
    assert blind[0] == told[0] == 1
    assert all(one >= other for one, other in pairwise(blind))
    assert told[1] > 0.9
    assert all(one >= other for one, other in zip(told, blind, strict=True)), "who is told more finds no less"
    assert blind[-1] < 0.1
    assert told[-1] < 0.25, "the told pairs are a tenth"


def test_a_profile_begins_with_the_length_of_its_row() -> None:
    rows, _ = profile(clustered(), clustered())
    lengths = ((clustered() - clustered().mean(axis=0)) ** 2).sum(axis=1)
    assert abs(np.corrcoef(rows[:, 0], lengths)[0, 1]) == pytest.approx(1)


def test_pairs_are_found_anew_in_double_precision_until_they_no_longer_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single precision settles at once, the first look in double precision errs: it takes two more to settle."""
    table = clustered()[:64]
    right = np.arange(len(table))
    wrong = right.copy()
    wrong[:2] = 1, 0
    looks = [right, wrong, right, right]
    precisions = list[type]()

    def scripted(a: Table, b: Table) -> Neighbours:
        precisions.append(a.dtype.type)
        nearest = looks[len(precisions) - 1] if len(precisions) <= len(looks) else right
        return Neighbours(nearest, np.zeros(len(b)), np.roll(right, 1), np.ones(len(b)))

    monkeypatch.setattr(table_matching, "neighbours", scripted)
    nobody = RowPairs(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    table_matching._iterate(table, table, RowPairs(right, right), "rotation", nobody, 20, right)
    assert precisions[:5] == [np.float32, np.float64, np.float64, np.float64, np.float32], "the last look is the vote's"


def test_fewer_pairs_than_dimensions_open_a_rotated_table() -> None:
    table, truth = shaken(clustered(), any_rotation)
    known = np.arange(8)
    found = match_tables(clustered(), table, known=RowPairs(known, truth[known]))
    assert recovered(found, truth) == 1
    assert found.seed == "pairs"
    wrong = match_tables(clustered(), table, known=RowPairs(known, np.roll(truth[known], 1)))
    assert wrong.seed != "pairs", "negative control: pairs that are wrong open nothing"
    assert recovered(wrong, truth) == 1 - 8 / 600, "what the tables alone give away stays"


@pytest.mark.parametrize("pairs", [2, 5])
def test_pairs_too_few_for_the_noise_do_not_keep_from_matching_the_tables(pairs: int) -> None:
    table, truth = shaken(clustered(), addv_inflate, 1.0)
    known = np.arange(pairs)
    blind = match_tables(clustered(), table)
    told = match_tables(clustered(), table, known=RowPairs(known, truth[known]))
    assert told.seed != "pairs"
    assert recovered(told, truth) >= recovered(blind, truth) > 0.5


def test_a_row_with_two_cipher_ids_is_found_twice() -> None:
    table, truth = shaken(clustered(), addv_inflate)
    twice, both = np.concatenate([table, table[:50]]), np.concatenate([truth, truth[:50]])
    assert recovered(match_tables(clustered(), twice), both) == 1


@pytest.mark.parametrize("shake", [addv_inflate, tilt, any_affine])
def test_a_trained_table_of_512_ids(shake: Shake, shared_data: Path) -> None:
    """A third of its rows were never trained: they differ by less than single precision tells."""
    public = sources.local(str(shared_data / "stories260k-hf")).embedding.double().numpy()
    table, truth = shaken(public, shake)
    assert recovered(match_tables(public, table), truth) >= 0.95
    stranger = generator(1, "stranger").standard_normal(public.shape)
    assert recovered(match_tables(public, stranger), truth) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("shake", [addv_inflate, tilt, any_rotation, any_affine])
def test_the_embedded_model_s_table(shake: Shake) -> None:
    public = sources.embedded().embedding.double().numpy()
    table, truth = shaken(public, shake)
    assert recovered(match_tables(public, table), truth) >= 0.95


def test_the_embedded_model_s_table_under_noise() -> None:
    """A part of it, under noise as large as the table's own deviation."""
    public = sources.embedded().embedding.double().numpy()[500:1500]
    table, truth = shaken(public, addv_inflate, 1.0)
    assert recovered(match_tables(public, table, "zscore", rounds=5), truth) > 0.5


def test_neighbours_agree_with_a_table_of_all_distances() -> None:
    rng = generator(0, "neighbours")
    a, b = rng.standard_normal((30, 5)), rng.standard_normal((40, 5))
    all_of_them = np.linalg.norm(b[:, None] - a[None], axis=2)
    found = neighbours(a, b)
    order = np.argsort(all_of_them, axis=1)
    np.testing.assert_array_equal(found.nearest, order[:, 0])
    np.testing.assert_array_equal(found.following, order[:, 1])
    np.testing.assert_allclose(found.first, all_of_them.min(axis=1) ** 2)
    assert len(set(found.nearest[found.claimed].tolist())) == found.claimed.sum() == len(set(found.nearest.tolist()))


@pytest.mark.parametrize("kind", ["axes", "rotation", "affine"])
def test_a_map_is_fitted_to_what_made_the_rows(kind: str) -> None:
    rng = generator(0, kind)
    x = rng.standard_normal((50, 6))
    matrix = {
        "axes": np.diag(rng.uniform(0.5, 2, 6)),
        "rotation": 1.5 * np.linalg.qr(rng.standard_normal((6, 6)))[0],
        "affine": rng.standard_normal((6, 6)),
    }[kind]
    np.testing.assert_allclose(fit_map(kind, x, x @ matrix + 3)(x), x @ matrix + 3, atol=1e-4)


def test_what_cannot_be_compared_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown"):
        match_tables(clustered(), clustered(), "magic")
    with pytest.raises(ConfigError, match="width"):
        match_tables(clustered(), clustered()[:, :8])
