"""First pairs between two embedding tables whose rows stand in another order: what survives a secret map.

* ``zscore``: columns to mean 0 and deviation 1 undo an added vector and an inflated diagonal exactly, and leave a
  tilted row near itself while the tilt is mild (arXiv 2403.07283, operators as reconstructed).
* ``axes``: principal axes turn with the table, so scores along them agree up to a sign, which the skewed distribution
  of the scores along each axis tells. Estimated from all rows, they stand much noise on single ones.
* ``moments``: after whitening any affine map is a rotation, and the axes of the norm-weighted second moment turn with
  it (fourth-order blind identification, Cardoso 1989).
* ``profile``: a row's inner products with all rows, sorted, do not change under a rotation: the leverage score and
  quantiles of that profile name the row.
"""

import numpy as np

from smd_research.mechanisms.embedding_matching.table_maps import Floats, Ids

_AXES = 48  # leading axes compared; what follows is small or nearly degenerate
_QUANTILES = 48
_PROFILE_ROWS = 8192  # beyond, profiles are taken over a stride of the rows
_RANK = 1e-6  # of the largest singular value: below, a direction is empty and is not whitened


def zscore(table: Floats) -> Floats:
    """Columns to mean 0 and deviation 1."""
    centred = table - table.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled: Floats = centred / np.where(deviation > 0, deviation, 1.0)
    return scaled


def whiten(table: Floats) -> Floats:
    """Centred, with unit covariance in every direction that is not empty ``[V, rank]``."""
    centred = table - table.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    found: Floats = u[:, s > _RANK * s[0]] * np.sqrt(len(table))
    return found


def axes(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Scores along the principal axes of each table, signs resolved and unreliable axes weighed down."""
    return _along(x - x.mean(axis=0), y - y.mean(axis=0), None, None)


def moments(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Scores of the whitened tables along the axes of their norm-weighted second moment."""
    x, y = whiten(x), whiten(y)
    return _along(x, y, (x * x).sum(axis=1), (y * y).sum(axis=1))


def profile(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Norm and sorted inner products of each centred row, which no rotation changes."""
    return _profiles(x - x.mean(axis=0)), _profiles(y - y.mean(axis=0))


def whitened_profile(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Leverage score and sorted similarities of each whitened row, which no affine map changes."""
    return _profiles(whiten(x)), _profiles(whiten(y))


def from_pairs(x: Floats, y: Floats, cipher: Ids, plain: Ids) -> tuple[Floats, Floats]:
    """Coordinates relative to ``m`` known rows: inside their span, and the length of what stands outside it.

    A rotation keeps both, so fewer pairs than dimensions serve.
    """
    x, y = x - x[plain].mean(axis=0), y - y[cipher].mean(axis=0)
    u, s, vt = np.linalg.svd(x[plain].T @ y[cipher], full_matrices=False)
    kept = s > _RANK * s[0]
    u, vt = u[:, kept], vt[kept]
    inside = (x @ u, y @ vt.T)
    return _with_rest(x, inside[0]), _with_rest(y, inside[1])


def _with_rest(rows: Floats, inside: Floats) -> Floats:
    rest = np.sqrt(np.maximum((rows * rows).sum(axis=1) - (inside * inside).sum(axis=1), 0))
    return np.column_stack([inside, rest])


def _along(x: Floats, y: Floats, x_weights: Floats | None, y_weights: Floats | None) -> tuple[Floats, Floats]:
    """Scores along the eigenvectors of weighted second moments, largest first, each to unit deviation."""
    count = min(_AXES, x.shape[1], y.shape[1])
    one, two = _scores(x, x_weights, count), _scores(y, y_weights, count)
    levels = np.linspace(0.002, 0.998, 250)
    q_one, q_two = np.quantile(one, levels, axis=0), np.quantile(two, levels, axis=0)
    same = np.abs(q_one - q_two).mean(axis=0)
    turned = np.abs(q_one + q_two[::-1]).mean(axis=0)
    sign = np.where(same <= turned, 1.0, -1.0)
    weight = np.abs(same - turned) / np.maximum(same + turned, 1e-30)
    return one * weight, two * (sign * weight)


def _scores(rows: Floats, weights: Floats | None, count: int) -> Floats:
    moment = rows.T @ (rows if weights is None else rows * weights[:, None])
    _, vectors = np.linalg.eigh(moment)
    scores = rows @ vectors[:, ::-1][:, :count]
    scaled: Floats = scores / np.maximum(scores.std(axis=0), 1e-30)
    return scaled


def _profiles(rows: Floats) -> Floats:
    """``[V, 1 + quantiles]``: squared norm and quantiles of the inner products with all rows, columns z-scored."""
    others = rows[:: -(-len(rows) // _PROFILE_ROWS)]
    levels = np.linspace(0, len(others) - 1, _QUANTILES).round().astype(np.int64)
    parts = []
    for start in range(0, len(rows), 1024):
        part = np.sort(rows[start : start + 1024] @ others.T, axis=1)
        parts.append(part[:, levels])
    return zscore(np.column_stack([(rows * rows).sum(axis=1), np.concatenate(parts)]))
