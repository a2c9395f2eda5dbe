"""Which row of a public embedding table became which row of a shaken one.

Whoever serves a keyed model holds its shaken table, and knows the public table that it was made from. Every operator
that does not add noise is an affine map of the whole table (arXiv 2403.07283, operators as reconstructed), and
thousands of rows determine it: seeds (``table_seeds``) give first pairs, and a map fitted on mutual nearest
neighbours gives better ones, until they no longer change (iterated orthogonal Procrustes; least squares where a
rotation is too narrow). Of a large table the rounds are made on a stride of the shaken rows, which fit the map as well,
and the others are matched once, under the map that was found.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.embedding_matching import table_seeds as seeds
from smd_research.mechanisms.embedding_matching.table_maps import (
    Floats,
    Ids,
    TableMap,
    fit_map,
    neighbours,
    neighbours_in_double,
)

METHODS = ("zscore", "rotation", "whitened", "auto")
EXACT = 1e-3  # relative residual below which a match proves itself: rounding alone is left


@dataclass(frozen=True, repr=False, eq=False)
class TableMatch:
    """A mapping between the rows of two tables.

    Attributes:
        mapping: for each shaken row the public one ``[V']``.
        sure: how far each choice stands out, 0 to 1 ``[V']``.
        residual: what the fitted map leaves of the shaken table, relative to its deviation from its mean.
        margin: mean of ``sure``: 1 for a noiseless match, close to 0 for tables that have nothing in common.
        vote: share of rows whose choice is confirmed by columns that had no part in it; one half is chance.
        seed: which seed led here.
        kind: of the fitted map.
        rounds: fits made.
    """

    mapping: Ids
    sure: NDArray[np.float64]
    residual: float
    margin: float
    vote: float
    seed: str
    kind: str
    rounds: int

    @property
    def standing(self) -> float:
        """What matches are compared by: the vote, and among votes much alike the tighter fit."""
        return self.vote - self.residual / 10

    @property
    def exact(self) -> bool:
        """Whether nothing but rounding is left: a proof, but among rows of a table that are equal."""
        return self.residual < EXACT


@dataclass(frozen=True, repr=False, eq=False)
class RowPairs:
    """Rows known to belong together: ``cipher [m]`` of the shaken table, ``plain [m]`` of the public one."""

    cipher: Ids
    plain: Ids


# Rows that seeds and maps are found on; a table with more gives a stride of them.
_SAMPLE = 8192
_CONVINCING = 0.8  # a vote that ends the search for a better seed
_SETTLED = 0.002  # share of the pairs below which a change no longer matters
_NEARLY = 1e-2  # residual below which rows may differ by less than single precision tells
# A seed's name, its first pairs, and the kinds of map to fit from them, one after another.
Start = tuple[str, RowPairs, tuple[str, ...]]
NO_PAIRS = RowPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def match_tables(
    public: Floats, shaken: Floats, method: str = "auto", known: RowPairs = NO_PAIRS, rounds: int = 20
) -> TableMatch:
    """Match the rows of a shaken table to those of the public one.

    Args:
        public: ``[V, d]``.
        shaken: ``[V', d]``; more rows than the public table where ids have homophones.
        method: ``zscore`` (column statistics: added vectors, inflated diagonals), ``rotation`` (principal axes and
            similarity profiles: tilts), ``whitened`` (the same after whitening: any affine map), or ``auto``: all of
            them, until one proves itself; the one that stands out most.
        known: pairs that are known: held fixed in every match, and two or more seed one of their own, tried first.
        rounds: fits at most for each seed and kind of map.

    Raises:
        ConfigError: for an unknown method, or tables that cannot be compared.
    """
    if method not in METHODS:
        raise ConfigError(f"table matching: method '{method}' is unknown: use one of {', '.join(METHODS)}")
    if public.ndim != 2 or shaken.ndim != 2 or public.shape[1] != shaken.shape[1]:
        raise ConfigError(f"table matching: tables {public.shape} and {shaken.shape} have rows of different width")
    x, y = np.asarray(public, dtype=np.float64), np.asarray(shaken, dtype=np.float64)
    rows = np.union1d(np.arange(0, len(y), -(-len(y) // _SAMPLE)), known.cipher).astype(np.int64)
    best = _best(x, y, _starts(x, y, method, known, rows), known, rounds, rows)
    return best if len(rows) == len(y) else _of_all_rows(x, y, best, known, rows)


def _of_all_rows(x: Floats, y: Floats, found: TableMatch, known: RowPairs, rows: Ids) -> TableMatch:
    """A match of the rows ``[n]`` of the shaken table extended to all of them, under the map of the clearer half."""
    if found.kind == "none":
        return replace(found, mapping=np.full(len(y), -1), sure=np.zeros(len(y)))
    clear = found.sure >= np.median(found.sure)
    kind = "affine" if found.kind == "whitened" else found.kind
    fitted = fit_map(kind, x[found.mapping[clear]], y[rows[clear]])
    near = neighbours_in_double(fitted(x), y)
    mapping = near.nearest
    mapping[known.cipher] = known.plain
    residual = _residual(fitted(x)[mapping], y)
    return replace(
        found, mapping=mapping, sure=near.margin, residual=residual, margin=float(near.margin.mean()), kind=kind
    )


def _best(x: Floats, y: Floats, starts: Iterable[Start], known: RowPairs, rounds: int, rows: Ids) -> TableMatch:
    """The match that stands out most; the first that proves itself ends the search."""
    best: TableMatch | None = None
    for seed, first, kinds in starts:
        found = _refine(x, y, first, kinds, known, rounds, seed, rows)
        if best is None or found.standing > best.standing:
            best = found
        if best.exact or best.vote >= _CONVINCING:
            break
    assert best is not None
    return best


def _starts(x: Floats, y: Floats, method: str, known: RowPairs, rows: Ids) -> Iterator[Start]:
    """Seeds with the kinds of map to fit from them, cheapest first."""
    if len(known.cipher) > 1:
        features = seeds.from_pairs(x, y, known.cipher, known.plain)
        yield "pairs", _paired(*features, known, rows), ("rotation", "affine")
    if method in ("zscore", "auto"):
        yield "zscore", _paired(seeds.zscore(x), seeds.zscore(y), known, rows), ("axes", "affine")
    if method in ("rotation", "auto"):
        yield "axes", _paired(*seeds.axes(x, y), known, rows), ("rotation", "affine")
        yield "profile", _paired(*seeds.profile(x, y), known, rows), ("rotation", "affine")
    if method in ("whitened", "auto"):
        yield "moments", _paired(*seeds.moments(x, y), known, rows), ("whitened", "affine")
        yield "whitened_profile", _paired(*seeds.whitened_profile(x, y), known, rows), ("whitened", "affine")


def _paired(a: Floats, b: Floats, known: RowPairs, rows: Ids) -> RowPairs:
    """Rows of features ``a [V, k]`` and ``b [V', k]`` by nearest neighbours, the clearer half, and what is known.

    Only the rows ``[n]`` of ``b`` are paired.
    """
    found = neighbours(a.astype(np.float32), b[rows].astype(np.float32))
    claimed = np.flatnonzero(found.claimed)
    claimed = claimed[found.margin[claimed] >= np.median(found.margin[claimed])]
    return _joined(RowPairs(rows[claimed], found.nearest[claimed]), known)


def _joined(pairs: RowPairs, known: RowPairs) -> RowPairs:
    free = ~(np.isin(pairs.cipher, known.cipher) | np.isin(pairs.plain, known.plain))
    return RowPairs(np.append(known.cipher, pairs.cipher[free]), np.append(known.plain, pairs.plain[free]))


def _refine(
    x: Floats, y: Floats, pairs: RowPairs, kinds: tuple[str, ...], known: RowPairs, rounds: int, seed: str, rows: Ids
) -> TableMatch:
    """Fit, pair mutual neighbours, fit again: with each kind in turn, as far as there are pairs to fit it."""
    best = TableMatch(np.full(len(rows), -1), np.zeros(len(rows)), 1.0, 0.0, 0.5, seed, "none", 0)
    for kind in kinds:
        if len(pairs.cipher) < (2 * x.shape[1] if kind == "affine" else 3):
            continue
        space = (seeds.whiten(x), seeds.whiten(y)) if kind == "whitened" else (x, y)
        if space[0].shape[1] != space[1].shape[1]:
            continue
        found, pairs = _iterate(*space, pairs, kind, known, rounds, rows)
        if found.standing >= best.standing:
            best = replace(found, seed=seed)
    return best


def _iterate(
    x: Floats, y: Floats, pairs: RowPairs, kind: str, known: RowPairs, rounds: int, rows: Ids
) -> tuple[TableMatch, RowPairs]:
    """One kind of map, until the pairs no longer change; in double precision where only that tells rows apart."""
    made, part, held = 0, y[rows], np.searchsorted(rows, known.cipher)
    precision: type[np.floating] = np.float32
    while True:
        fitted = fit_map("rotation" if kind == "whitened" else kind, x[pairs.plain], y[pairs.cipher])
        near = neighbours(fitted(x).astype(precision), part.astype(precision))
        mapping = near.nearest
        mapping[held] = known.plain
        claimed = np.flatnonzero(near.claimed)
        following = _joined(RowPairs(rows[claimed], mapping[claimed]), known)
        settled = _changed(pairs, following) <= (_SETTLED if precision == np.float32 else 0)
        pairs, made = following, made + 1
        if settled or made >= rounds:
            residual = _residual(fitted(x)[mapping], part)
            if precision == np.float64 or residual > _NEARLY:
                break
            precision, made = np.float64, min(made, rounds - 2)
    return TableMatch(
        mapping, near.margin, residual, float(near.margin.mean()), _vote(x, part, fitted), "", kind, made
    ), pairs


def _changed(before: RowPairs, after: RowPairs) -> float:
    """Share of the pairs that were not there before."""
    size = int(max(before.cipher.max(initial=0), after.cipher.max(initial=0))) + 1
    held = np.full(size, -1)
    held[before.cipher] = before.plain
    return float((held[after.cipher] != after.plain).mean()) if len(after.cipher) else 0.0


def _vote(x: Floats, y: Floats, fitted: TableMap) -> float:
    """Share of shaken rows whose nearest by half of the columns beats the next one in the other half.

    The map of the other half is fitted on every second row and judges the rest, so that a map of tables that have
    nothing in common is right half of the time, however well it fits.
    """
    half, other = slice(0, None, 2), slice(1, None, 2)
    near = neighbours((fitted(x)[:, half]).astype(np.float32), y[:, half].astype(np.float32))
    wins = []
    for learned, judged in ((half, other), (other, half)):
        judge = fit_map("affine", x[near.nearest[learned]], y[learned, other])
        one, two = (
            ((judge(x[chosen[judged]]) - y[judged, other]) ** 2).sum(axis=1)
            for chosen in (near.nearest, near.following)
        )
        wins.append((one < two).mean() + 0.5 * (one == two).mean())
    return float(np.mean(wins))


def _residual(fitted: Floats, y: Floats) -> float:
    return float(np.linalg.norm(y - fitted) / max(float(np.linalg.norm(y - y.mean(axis=0))), 1e-30))
