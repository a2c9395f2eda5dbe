"""The bank of one-time masks: a mask is burnt before anything masked with it leaves, and never comes back.

Row ``u`` of product ``i`` is masked with ``r``, row ``u mod 64`` of ``stream(i, u div 64)``, made again from the key
when it is needed: 64 rows share a stream since starting one costs as much as drawing a thousand residues. The key has a
nonce in it that every opening of a bank draws anew, so that no other bank has its masks: none of the same seed, no
copy, and none that follows a crash, a deleted folder or a restored backup.

What is stored is the cancellation ``c = W r`` modulo the prime, computed beforehand for many rows at once. That work is
as large as the product it hides: it is counted apart, as offline work. Reconstructed: what arXiv 2407.10886 says of a
bank was out of reach; the algebra is that of Slalom (arXiv 1806.03287).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.core.errors import LabError, ProtocolError
from smd_research.defenses.slip.storage import Cancellations, MaskStorage
from smd_research.mechanisms.integers.field import Field
from smd_research.mechanisms.integers.masks import MaskStream

PREPARED_AT_ONCE = 256
"""Rows whose cancellations one product computes together: bounds the memory it takes meanwhile."""
BLOCK = 64
"""Rows that share a stream."""


class MasksExhaustedError(LabError):
    """A request that needs more masks than are left; none of them is used."""


@dataclass(frozen=True)
class Masks:
    """Masks of some consecutive rows of one product.

    Attributes:
        use: number of the first row.
        r: masks ``[rows, n]``.
        c: what they become under the exposed weights ``[rows, m]``.
    """

    use: int
    r: Tensor
    c: Tensor

    def __repr__(self) -> str:
        return f"Masks(use={self.use}, rows={len(self.r)})"


@dataclass(frozen=True)
class Offline:
    """Work done ahead of requests.

    Attributes:
        rows: masked rows prepared, over all products.
        flops: floating-point operations of their cancellations, two for each weight and row.
        seconds: it took.
    """

    rows: int = 0
    flops: int = 0
    seconds: float = 0.0


class MaskBank:
    """Masks of all products of one deployment.

    Args:
        stream: the secret key's; the masks come from one opening of it.
        field: of the residues.
        weights: the exposed integers ``[m, n]`` of each product, for the cancellations.
        storage: where they are kept.
        limit: rows of each product that may be prepared in all; None prepares whatever is asked for.
    """

    def __init__(
        self,
        stream: MaskStream,
        field: Field,
        weights: Mapping[int, Tensor],
        storage: MaskStorage,
        limit: int | None = None,
    ) -> None:
        self._stream = stream.opening()
        self._field = field
        self._weights = {product: field.admit(integers) for product, integers in weights.items()}
        self._storage = storage
        self._limit = limit
        self._next = dict.fromkeys(weights, 0)
        self._masks: dict[int, tuple[int, Tensor]] = {}
        self._over: str | None = None
        self.offline = Offline()
        if limit is not None:
            self._prepare(dict.fromkeys(weights, limit))

    def left(self, product: int) -> int:
        """Prepared rows of a product that were not used."""
        return self._storage.end(product) - self._next[product]

    @property
    def nbytes(self) -> int:
        """Bytes of the cancellations held."""
        return self._storage.nbytes

    def reserve(self, rows: Mapping[int, int]) -> None:
        """See to it that so many rows of each product are there.

        Raises:
            MasksExhaustedError: when they may not be prepared.
            ProtocolError: after an abort.
        """
        self._check_open()
        missing = {product: count - self.left(product) for product, count in rows.items()}
        short = [product for product, count in missing.items() if count > 0]
        if not short:
            return
        if self._limit is not None:
            first = short[0]
            raise MasksExhaustedError(
                f"the mask bank is exhausted: {rows[first]} rows of product {first} are needed, {self.left(first)} of "
                f"masks={self._limit} are left; deploy again, or give more masks"
            )
        self._prepare(missing)

    def take(self, product: int, rows: int) -> Masks:
        """Masks for the next rows of a product; they are burnt when this returns.

        Raises:
            MasksExhaustedError: when there are no more.
            ProtocolError: after an abort.
        """
        self._check_open()
        if self.left(product) < rows:
            self.reserve({product: rows})
        use = self._next[product]
        self._next[product] = use + rows
        return Masks(use, self._made(product, use, rows), self._storage.take(product, use, rows))

    def abort(self, reason: str) -> None:
        """End the session: every mask that was prepared is burnt, none is handed out any more."""
        if self._over is None:
            self._over = reason
            self._masks.clear()
            self._storage.drop()

    def close(self) -> None:
        """End the session and let the storage go."""
        self.abort("it was closed")
        self._storage.close()

    def _check_open(self) -> None:
        if self._over is not None:
            raise ProtocolError(f"the session has ended and its masks are burnt ({self._over}): deploy again")

    def _made(self, product: int, use: int, rows: int) -> Tensor:
        """Masks ``[rows, n]`` from the key; what the last block has beyond them is kept for the next rows."""
        first, held = self._masks.pop(product, (0, None))
        if held is None or use < first or use + rows > first + len(held):
            first, held = mask_blocks(
                self._stream, self._field, product, self._weights[product], range(use, use + rows)
            )
        made, left = torch.split(held[use - first :], [rows, len(held) - (use - first) - rows])
        if len(left):  # of a long prompt only the last block is kept
            self._masks[product] = use + rows, left if len(held) <= BLOCK else left.clone()
        return made

    def _prepare(self, missing: Mapping[int, int]) -> None:
        began = time.perf_counter()
        for product, use in self._next.items():  # what the last request used up would stand beside what comes
            self._storage.forget(product, use)
        self._storage.admit(sum(8 * max(count, 0) * len(self._weights[product]) for product, count in missing.items()))
        total = flops = 0
        for product, count in missing.items():
            if count > 0:
                self._cancel(product, count)
                total += count
                flops += 2 * count * self._weights[product].numel()
        seconds = time.perf_counter() - began
        self.offline = Offline(self.offline.rows + total, self.offline.flops + flops, self.offline.seconds + seconds)

    def _cancel(self, product: int, count: int) -> None:
        """Compute and store ``c = W r`` of the next ``count`` rows."""
        weights = self._weights[product]
        first = self._storage.end(product)
        for start in range(first, first + count, PREPARED_AT_ONCE):
            uses = range(start, min(start + PREPARED_AT_ONCE, first + count))
            held_from, held = mask_blocks(self._stream, self._field, product, weights, uses)
            r = held[start - held_from : uses.stop - held_from]
            self._storage.add(product, Cancellations(start, self._field.product(r, weights)))


def mask_blocks(stream: MaskStream, field: Field, product: int, weights: Tensor, uses: range) -> tuple[int, Tensor]:
    """The masks of some consecutive uses, in whole blocks: the first block's first use, and ``[rows, n]``.

    Args:
        stream: keyed.
        field: of the residues.
        product: its number.
        weights: ``[m, n]``; the masks are where they are.
        uses: which are needed.
    """
    width = weights.shape[1]
    blocks = range(uses.start // BLOCK, (uses.stop - 1) // BLOCK + 1)
    drawn = stream.rows(blocks, product, BLOCK * width, field.prime)
    return blocks.start * BLOCK, drawn.view(-1, width).to(weights.device)
