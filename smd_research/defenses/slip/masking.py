"""What hides an activation from the device: one-time masks in the field, or, as demonstrations, something less.

Every masking goes through the same code, so that the unmasked integer pipeline differs from the masked one in the masks
alone. All but ``uniform`` are demonstrations of what the guarantee rests on and hide little or nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from smd_research.core.seeds import generator
from smd_research.defenses.slip.bank import MaskBank, Masks, Offline, mask_blocks
from smd_research.mechanisms.integers.field import Field
from smd_research.mechanisms.integers.fixed_point import FixedPoint
from smd_research.mechanisms.integers.masks import MaskStream

MASKINGS = ("uniform", "none", "reused", "float")


class Masking(ABC):
    """Masks of every product, and what they do to an input and to a reply."""

    def begin(self, draw: int) -> None:  # noqa: B027 (masks that are used once know no draw)
        """A request begins, with the randomness of that number."""

    @abstractmethod
    def take(self, product: int, rows: int) -> Masks:
        """Masks of the next rows of a product."""

    @abstractmethod
    def hide(self, x: Tensor, masks: Masks) -> Tensor:
        """A fixed-point input (signed int64 ``[rows, n]``) as it crosses."""

    @abstractmethod
    def reveal(self, y: Tensor, masks: Masks) -> Tensor:
        """The true product ``[rows, m]`` (signed) of a reply."""

    def reserve(self, rows: Mapping[int, int]) -> None:  # noqa: B027 (demonstrations hold nothing)
        """Prepare masks for so many rows of each product ahead of a request."""

    def abort(self, reason: str) -> None:  # noqa: B027 (demonstrations hold nothing)
        """Burn what was prepared."""

    def close(self) -> None:  # noqa: B027 (demonstrations hold nothing)
        """End the session."""

    @property
    def offline(self) -> Offline:
        """Work done ahead of requests."""
        return Offline()

    @property
    def nbytes(self) -> int:
        """Bytes of masks held."""
        return 0


class FieldMasking(Masking):
    """Masks added modulo the prime; alone, the demonstration ``none``: the device sees the plain integers."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._uses: dict[int, int] = {}
        self._zero = torch.zeros((), dtype=torch.int64)

    def take(self, product: int, rows: int) -> Masks:
        use = self._uses.get(product, 0)
        self._uses[product] = use + rows
        return Masks(use, self._zero, self._zero)

    def hide(self, x: Tensor, masks: Masks) -> Tensor:
        return self._field.add(x, masks.r)

    def reveal(self, y: Tensor, masks: Masks) -> Tensor:
        # as ``Field.lift``, in float64: exact for what the bound admits, and a third of the time
        difference = (y - masks.c).double()
        quotient = torch.mul(difference, 1 / self._field.prime).round_()
        return difference.sub_(quotient, alpha=self._field.prime)


class UniformMasking(FieldMasking):
    """Uniform masks from a bank, each used once: what the guarantee is about."""

    def __init__(self, field: Field, bank: MaskBank) -> None:
        super().__init__(field)
        self._bank = bank

    def take(self, product: int, rows: int) -> Masks:
        return self._bank.take(product, rows)

    def reserve(self, rows: Mapping[int, int]) -> None:
        self._bank.reserve(rows)

    def abort(self, reason: str) -> None:
        self._bank.abort(reason)

    def close(self) -> None:
        self._bank.close()

    @property
    def offline(self) -> Offline:
        return self._bank.offline

    @property
    def nbytes(self) -> int:
        return self._bank.nbytes


class ReusedMasking(FieldMasking):
    """Demonstration: row ``u`` of every message of a product has the same mask, so that two messages subtract."""

    def __init__(self, field: Field, stream: MaskStream, weights: Mapping[int, Tensor]) -> None:
        super().__init__(field)
        self._stream = stream
        self._weights = weights
        self._held: dict[int, Masks] = {}

    def take(self, product: int, rows: int) -> Masks:
        held = self._held.get(product)
        if held is None or len(held.r) < rows:
            weights = self._field.admit(self._weights[product])
            _, r = mask_blocks(self._stream, self._field, product, weights, range(rows))
            held = self._held[product] = Masks(0, r, self._field.product(r, weights))
        return Masks(0, held.r[:rows], held.c[:rows])

    @property
    def nbytes(self) -> int:
        return sum(held.c.nbytes for held in self._held.values())


class FloatMasking(Masking):
    """Demonstration: fresh Gaussian masks in floating point, which fade beside a large activation and cost precision.

    Args:
        points: how rows become integers, by product.
        weights: the exposed integers ``[m, n]``, by product.
        seed: of the masks.
    """

    SHARE = 2.0**-6
    """Standard deviation of a mask, as a share of the longest row there may be."""

    def __init__(self, points: Mapping[int, FixedPoint], weights: Mapping[int, Tensor], seed: int) -> None:
        self._points = points
        self._weights = weights
        self._seed = seed
        self._uses: dict[int, int] = {}
        self.begin(0)

    def begin(self, draw: int) -> None:
        self._rng = generator(self._seed, "slip", "float masks", draw)

    def take(self, product: int, rows: int) -> Masks:
        use = self._uses.get(product, 0)
        self._uses[product] = use + rows
        weights = self._weights[product]
        drawn = self._rng.standard_normal((rows, weights.shape[1])) * self._points[product].room * self.SHARE
        r = torch.from_numpy(drawn).float().to(weights.device)
        return Masks(use, r, (r.double() @ weights.double().T).float())

    def hide(self, x: Tensor, masks: Masks) -> Tensor:
        return x.float() + masks.r

    def reveal(self, y: Tensor, masks: Masks) -> Tensor:
        return y - masks.c
