"""Exact linear algebra modulo a prime on float64 hardware.

A weight matrix of small integers times a vector of residues is computed without rounding: the residues are cut into
limbs so short that a whole inner product stays below 2^53, all limbs share one pass over the weights, and the limbs'
products are put together again modulo the prime. Reconstructed: the papers (arXiv 2407.10886, 2510.24999) place weights
in Z_p; limbs in float64 are ours, after the blinded products of Slalom (arXiv 1806.03287).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from smd_research.core.errors import ConfigError

EXACT_BITS = 53
"""Integers of so many bits are exact in float64."""
FEW_ROWS = 2
"""Up to so many limb rows the weights stand on the left of the product: twice as fast there, slower beyond."""
BLOCK, BLOCK_THERE = 2**17, 2**24
"""Weights turned to float64 at a time: what a processor's cache holds, and what keeps an accelerator busy."""


def limbs_of(x: Tensor, bits: int, limbs: int) -> Tensor:
    """Limbs of residues ``[rows, n]``, all lowest ones first, as float64 ``[limbs * rows, n]``."""
    return (x >> _places(bits, limbs, x.device)).bitwise_and_(2**bits - 1).flatten(0, 1).double()


@cache
def _places(bits: int, limbs: int, device: torch.device) -> Tensor:
    # made once: for a single row it would take as long as the cut
    return torch.arange(0, bits * limbs, bits, device=device).view(-1, 1, 1)


@dataclass(frozen=True)
class Field:
    """Integers modulo a prime, as int64 tensors of residues ``[0, prime)``.

    Attributes:
        prime: the modulus, below 2^42.
        limb_bits: bits of a limb; with a single limb, of the whole residue.
        limbs: 1 or 2.
        weight_bits: weights are integers of a magnitude below ``2**weight_bits``.
    """

    prime: int
    limb_bits: int
    limbs: int
    weight_bits: int

    @property
    def longest(self) -> int:
        """The longest inner product that is exact."""
        # a single limb is centred before the product, which saves it a bit
        bits = self.limb_bits if self.limbs > 1 else self.limb_bits - 1
        return int(2 ** (EXACT_BITS - bits - self.weight_bits))

    def reduce(self, x: Tensor) -> Tensor:
        """Residues ``[0, prime)`` of any int64."""
        return torch.remainder(x, self.prime)

    def lift(self, y: Tensor) -> Tensor:
        """The representatives in ``(-prime/2, prime/2)`` of any int64 of a magnitude below 2^62."""
        half = self.prime // 2
        return torch.remainder(y + half, self.prime).sub_(half)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y`` as residues; one of the two may be signed and unreduced (below 2^62): a fixed-point number."""
        return torch.remainder(x + y, self.prime)

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        """``x - y`` as residues, on the terms of ``add``."""
        return torch.remainder(x - y, self.prime)

    def admit(self, integers: Tensor) -> Tensor:
        """Integer weights ``[m, n]`` that ``product`` may be given, as they are.

        Raises:
            ConfigError: for weights too large, or rows too long, to be multiplied exactly.
        """
        self._check_length(integers.shape[1])
        low, high = torch.aminmax(integers)
        largest = max(-int(low), int(high))
        if largest >= 2**self.weight_bits:
            raise ConfigError(
                f"weights reach {largest}, but the field modulo {self.prime} takes integers below "
                f"{2**self.weight_bits}: use field=wide or fewer bits"
            )
        return integers

    def product(self, x: Tensor, weights: Tensor) -> Tensor:
        """``x @ weights.T`` modulo the prime, exact: every limb in one pass over the weights.

        The weights stay as small as they are: a block of rows at a time is turned to float64, in which it takes four
        times the room of int16 and no more time to multiply by than to fetch.

        Args:
            x: residues, int64 ``[rows, n]``.
            weights: integers ``[m, n]`` of any type, within ``weight_bits`` (see ``admit``).

        Returns:
            Residues, int64 ``[rows, m]``.

        Raises:
            ConfigError: where ``n`` is too long for an exact inner product.
        """
        self._check_length(x.shape[1])
        limbs = self.lift(x).double() if self.limbs == 1 else limbs_of(x, self.limb_bits, self.limbs)
        rows = max(1, (BLOCK_THERE if weights.is_cuda else BLOCK) // weights.shape[1])
        y = torch.empty(len(x), len(weights), dtype=torch.int64, device=x.device)
        for block, part in zip(torch.split(weights, rows), torch.split(y, rows, dim=1), strict=True):
            part.copy_(self._join(_times(limbs, block.double())))
        return y

    def _join(self, y: Tensor) -> Tensor:
        """Residues of exact products of limbs, the lowest first; every step stays below 2^63."""
        if self.limbs == 1:
            return y.long().remainder_(self.prime)
        low, high = y.long().chunk(2)
        # few operations rather than fast ones: the product takes nearly all of the time, and one row is small
        return low.add_(high.remainder_(self.prime), alpha=2**self.limb_bits).remainder_(self.prime)

    def _check_length(self, n: int) -> None:
        if n > self.longest:
            raise ConfigError(
                f"inner products of {n} terms are not exact modulo {self.prime}: at most {self.longest}; "
                "use field=wide or split the layer"
            )


def _times(limbs: Tensor, weights: Tensor) -> Tensor:
    """``limbs @ weights.T``, both float64."""
    if len(limbs) <= FEW_ROWS:
        return torch.mm(weights, limbs.t()).t().contiguous()
    return functional.linear(limbs, weights)


WIDE = Field(prime=2**41 - 21, limb_bits=21, limbs=2, weight_bits=15)
NARROW = Field(prime=2**33 - 9, limb_bits=33, limbs=1, weight_bits=7)
FIELDS = {"wide": WIDE, "narrow": NARROW}
"""``wide`` takes int16 weights in two limbs, ``narrow`` int8 weights in one."""
