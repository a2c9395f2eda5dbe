"""Maps between two embedding tables of the same rows: fitted on pairs, and the rows nearest under them.

A shaken table is ``y = x A + b`` plus what was added to each row, its rows in another order. Which ``A`` is allowed is
the ``kind`` of map: ``axes`` (a slope and an offset a column: what adding one vector and inflating the diagonal do),
``rotation`` (orthogonal times one scale: a tilt) or ``affine`` (anything).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ids = NDArray[np.int64]

KINDS = ("axes", "rotation", "affine")
# Entries of a block of distances held at once: 256 MiB of float64.
_BLOCK = 1 << 25
_ROWS = 4096
_SINGLE = 1e-5  # of the squared norms: more than the rounding of squared distances in single precision
_RIDGE = 1e-6  # of the mean squared singular value: keeps a fit on few pairs finite and changes no other


@dataclass(frozen=True, repr=False, eq=False)
class TableMap:
    """``x -> x @ matrix + offset``, with ``matrix [d, d']`` and ``offset [d']``."""

    matrix: Floats
    offset: Floats

    def __call__(self, rows: Floats) -> Floats:
        return rows @ self.matrix + self.offset


def fit_map(kind: str, x: Floats, y: Floats) -> TableMap:
    """The least-squares map of a kind from rows ``x [n, d]`` to rows ``y [n, d]``."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    if kind == "axes":
        power = (x * x).sum(axis=0)
        matrix = np.diag((x * y).sum(axis=0) / np.maximum(power, _RIDGE * power.mean() + 1e-30))
    elif kind == "rotation":
        u, s, vt = np.linalg.svd(x.T @ y)
        matrix = (u @ vt) * (s.sum() / max(float((x * x).sum()), 1e-30))
    else:
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) / len(gram) + 1e-30
        matrix = np.linalg.solve(gram, x.T @ y)
    return TableMap(matrix.astype(x.dtype), (y_mean - x_mean @ matrix).astype(x.dtype))


@dataclass(frozen=True, repr=False, eq=False)
class Neighbours:
    """Nearest rows of a table ``a [V, d]`` and a table ``b [V', d]``.

    Attributes:
        nearest: for each row of ``b`` the nearest of ``a`` ``[V']``.
        first: squared distance to it ``[V']``.
        following: the next after it ``[V']``.
        second: squared distance to that ``[V']``.
    """

    nearest: Ids
    first: Floats
    following: Ids
    second: Floats

    @property
    def claimed(self) -> NDArray[np.bool_]:
        """Which rows of ``b`` have their nearest for themselves: of several with the same, the one by the widest gap.

        Many rows stand nearest to the same few of a crowd; what else is mutual there says little.
        """
        order = np.argsort(self.second - self.first, kind="stable")
        winner = np.full(int(self.nearest.max(initial=-1)) + 1, -1)
        winner[self.nearest[order]] = order
        found: NDArray[np.bool_] = winner[self.nearest] == np.arange(len(self.nearest))
        return found

    @property
    def margin(self) -> NDArray[np.float64]:
        """How far the nearest stands out, ``1 - d1 / d2`` in distances, from 0 (a tie) to 1 ``[V']``."""
        ratio = np.sqrt(np.maximum(self.first, 0) / np.maximum(self.second, 1e-30))
        found: NDArray[np.float64] = (1.0 - np.minimum(ratio, 1.0)).astype(np.float64)
        return found


def neighbours(a: Floats, b: Floats) -> Neighbours:
    """Exact search, in blocks of rows of ``b``."""
    own = (a * a).sum(axis=1)
    n = len(b)
    nearest, following = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    first, second = np.empty(n), np.empty(n)
    step = max(1, _BLOCK // len(a))
    for start in range(0, n, step):
        part = slice(start, min(n, start + step))
        rows = np.arange(part.stop - start)
        squared = squared_distances(a, b[part], own)
        nearest[part] = squared.argmin(axis=1)
        first[part] = squared[rows, nearest[part]]
        squared[rows, nearest[part]] = np.inf
        following[part] = squared.argmin(axis=1)
        second[part] = squared[rows, following[part]]
    return Neighbours(nearest, first, following, second)


def neighbours_in_double(a: Floats, b: Floats) -> Neighbours:
    """The same in double precision: searched in single, and again in double for rows that single cannot tell apart."""
    centre = a.mean(axis=0)
    a, b = a - centre, b - centre
    found = neighbours(a.astype(np.float32), b.astype(np.float32))
    largest = (b * b).sum(axis=1) + float((a * a).sum(axis=1).max())
    doubtful = np.flatnonzero(found.second - found.first <= _SINGLE * largest)
    again = neighbours(a, b[doubtful])
    found.nearest[doubtful], found.following[doubtful] = again.nearest, again.following
    for held, chosen in ((found.first, found.nearest), (found.second, found.following)):
        for start in range(0, len(b), _ROWS):
            part = slice(start, start + _ROWS)
            held[part] = ((a[chosen[part]] - b[part]) ** 2).sum(axis=1)
    return found


def squared_distances(a: Floats, b: Floats, own: Floats | None = None) -> Floats:
    """Squared distances ``[V', V]`` of rows of ``b [V', d]`` to rows of ``a [V, d]``."""
    found: Floats = b @ a.T
    found *= -2.0
    found += (b * b).sum(axis=1)[:, None]
    found += (a * a).sum(axis=1) if own is None else own
    return np.maximum(found, 0, out=found)
