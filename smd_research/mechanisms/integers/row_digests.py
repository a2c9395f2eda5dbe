"""Digests of a public table's rows: whoever looks rows up for somebody else can be checked without a second table."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

DIGEST_BYTES = 16
BLOCK = 2**14
"""Rows looked up at a time when the digests are made."""


class RowDigests:
    """BLAKE2b digests of every row of a table; a wrong row is found but for a collision (2^64 trials).

    No secret is involved, unlike in a ``Challenge``, so that checks tell nobody anything.

    Args:
        lookup: rows ``[n, width]`` of ids ``[n]`` (int64).
        rows: how many there are.
    """

    def __init__(self, lookup: Callable[[Tensor], Tensor], rows: int, device: torch.device) -> None:
        self._digests: list[bytes] = []
        for start in range(0, rows, BLOCK):
            self._digests += _digests(lookup(torch.arange(start, min(start + BLOCK, rows), device=device)))

    def accepts(self, ids: Tensor, found: Tensor) -> bool:
        """Whether ``found [n, width]`` is, bit for bit, what the table holds for ``ids [n]``."""
        return _digests(found) == [self._digests[one] for one in ids.tolist()]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return DIGEST_BYTES * len(self._digests)


def _digests(rows: Tensor) -> list[bytes]:
    plain = rows.detach().cpu().contiguous().view(torch.uint8).numpy()
    return [hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest() for row in plain]
