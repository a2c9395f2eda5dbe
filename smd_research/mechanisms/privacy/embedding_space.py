"""The public metric space in which token mechanisms measure: rows of an embedding table under Euclidean distance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from smd_research.core.errors import ConfigError, RefusedError

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Scale = Literal["unit", "raw"]
SCALES: tuple[Scale, ...] = get_args(Scale)

# Rows of distances held at once: 4 Mi float64 entries are 32 MiB, 85 rows of a table of 49,152 tokens.
_CHUNK_ENTRIES = 1 << 22


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddingSpace:
    """Embedding rows of a *public* model, and the tokens that are never noised.

    ``epsilon`` of a metric mechanism has meaning only beside the scale of its metric. ``"unit"`` (the default of
    :meth:`of`) scales every row to norm one, so distances lie in ``[0, 2]`` for every model and an epsilon can be
    compared across models; ``"raw"`` keeps the table's own scale.

    Attributes:
        rows: ``[V, d]`` float64.
        private_ids: ``[P]`` ids that are noised, ascending: every input's outputs, and nothing else.
        scale: how ``rows`` came from the table.
        refused_ids: ids of which nothing is known, and nothing is sent.
    """

    rows: Floats
    private_ids: Ids
    scale: Scale
    refused_ids: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __repr__(self) -> str:
        return f"EmbeddingSpace({self.vocab_size} rows, {len(self.private_ids)} private, scale={self.scale!r})"

    @classmethod
    def of(
        cls, table: torch.Tensor | npt.NDArray[np.floating], public_ids: Sequence[int] = (), scale: Scale = "unit"
    ) -> "EmbeddingSpace":
        """Build the space from an embedding table.

        Args:
            table: ``[V, d]``, any floating dtype.
            public_ids: special tokens, declared public: they pass unchanged and are never an output of another token.
            scale: ``"unit"`` or ``"raw"``.

        Raises:
            ConfigError: on an unknown scale, a table with non-finite entries, a public id outside the vocabulary, or
                fewer than two private tokens.
        """
        if scale not in SCALES:
            raise ConfigError(f"unknown embedding scale {scale!r}: choose {' or '.join(SCALES)}")
        if isinstance(table, torch.Tensor):
            rows = table.detach().to("cpu", torch.float64, copy=True).numpy()
        else:
            rows = np.array(table, dtype=np.float64)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise ConfigError("an embedding table must be a finite matrix [vocabulary, width]")
        if any(not 0 <= i < len(rows) for i in public_ids):
            raise ConfigError(f"public token ids must lie in [0, {len(rows)})")
        if scale == "unit":
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            np.divide(rows, norms, out=rows, where=norms > 0)
        private = np.setdiff1d(np.arange(len(rows), dtype=np.int64), np.asarray(public_ids, dtype=np.int64))
        if len(private) < 2:
            raise ConfigError("a token mechanism needs at least two private tokens")
        return cls(rows, private, scale)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """Entries of a row."""
        return int(self.rows.shape[1])

    @cached_property
    def private_rows(self) -> Floats:
        """Rows of the private tokens, ``[P, d]``; no copy where they stand together."""
        first, last = int(self.private_ids[0]), int(self.private_ids[-1])
        together = last - first + 1 == len(self.private_ids)
        return self.rows[first : last + 1] if together else self.rows[self.private_ids]

    @cached_property
    def is_private(self) -> npt.NDArray[np.bool_]:
        """Mask over the vocabulary, ``[V]``."""
        mask = np.zeros(self.vocab_size, dtype=bool)
        mask[self.private_ids] = True
        return mask

    @cached_property
    def column(self) -> Ids:
        """Column of each id among the private tokens, ``[V]``; ``-1`` for public ids."""
        columns = np.full(self.vocab_size, -1, dtype=np.int64)
        columns[self.private_ids] = np.arange(len(self.private_ids))
        return columns

    @cached_property
    def diameter_bound(self) -> float:
        """Twice the largest distance from the centre: at least the largest distance between two private tokens."""
        centred = self.private_rows - self.private_rows.mean(axis=0)
        radius = float(np.linalg.norm(centred, axis=1).max())
        return 2.0 * min(radius, 1.0) if self.scale == "unit" else 2.0 * radius

    @cached_property
    def mean_squares(self) -> Floats:
        """Mean squared distance from each private token to all others, ``[P]``: told by their centre, in ``P * d``."""
        size, centre = len(self.private_ids), self.private_rows.mean(axis=0)
        from_centre = self._squared_norms - 2.0 * (self.private_rows @ centre) + centre @ centre
        means: Floats = (from_centre + from_centre.mean()) * (size / (size - 1))
        return np.maximum(means, 0.0)

    @cached_property
    def _squared_norms(self) -> Floats:
        norms: Floats = np.einsum("pd,pd->p", self.private_rows, self.private_rows)
        return norms

    def check(self, ids: npt.ArrayLike) -> Ids:
        """Token ids as an array ``[n]``.

        Raises:
            ConfigError: when an id is outside the vocabulary: there is no out-of-vocabulary passage.
            RefusedError: when one is refused.
        """
        array = np.asarray(ids, dtype=np.int64).reshape(-1)
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            raise ConfigError(f"token ids must lie in [0, {self.vocab_size}): the mechanism emits no token unchanged")
        if len(self.refused_ids) and (lacking := int(np.isin(array, self.refused_ids).sum())):
            raise RefusedError(
                f"{lacking} of {len(array)} tokens have no vector: give vectors that cover them, or "
                "defense.unknown=uniform"
            )
        return array

    def distances(self, ids: npt.ArrayLike) -> Floats:
        """Euclidean distance (not squared) from each token to every private token, ``[n, P]``, float64."""
        array = self.check(ids)
        found = self._squared_distances(self.rows[array])
        np.sqrt(np.maximum(found, 0.0, out=found), out=found)
        # The Gram identity leaves about 1e-8 on the diagonal; a distance to oneself is zero.
        own = self.column[array]
        inside = np.flatnonzero(own >= 0)
        found[inside, own[inside]] = 0.0
        return found

    def nearest(self, points: Floats) -> Ids:
        """Id of the private token closest to each point, by exact search over all of them.

        Args:
            points: ``[n, d]``.

        Returns:
            ``[n]`` ids; the lowest id wins a tie.
        """
        found = np.empty(len(points), dtype=np.int64)
        for part in self.chunks(len(points)):
            found[part] = self.private_ids[np.argmin(self._squared_distances(points[part]), axis=1)]
        return found

    def chunks(self, n: int) -> Iterator[slice]:
        """Slices of ``range(n)`` whose distance rows fit in a fixed amount of memory."""
        step = max(1, _CHUNK_ENTRIES // len(self.private_ids))
        for start in range(0, n, step):
            yield slice(start, min(n, start + step))

    def _squared_distances(self, points: Floats) -> Floats:
        own: Floats = np.einsum("nd,nd->n", points, points)
        squared: Floats = points @ self.private_rows.T
        squared *= -2.0
        squared += own[:, None]
        squared += self._squared_norms
        return squared
