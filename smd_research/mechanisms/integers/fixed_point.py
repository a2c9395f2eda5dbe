"""Real numbers as integers: weights by row of the matrix, activations by row of the input."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from smd_research.core.errors import ConfigError, LabError
from smd_research.mechanisms.integers.field import Field

BITS = (16, 8, 4)
BLOCK = 2**20
"""Weights that are turned to float64 at a time."""


class FixedPointOverflowError(LabError, OverflowError):
    """A row of activations that has no fixed point, as one that is not finite; nothing is ever clipped."""


@dataclass(frozen=True)
class Quantised:
    """A weight matrix of integers with a scale for each output.

    Attributes:
        integers: int16 (16 bits) or int8 (8 and 4 bits) ``[m, n]``, symmetric: ``|w| < 2**(bits - 1)``.
        scale: float32 ``[m]``, positive: the weight that an integer 1 stands for.
    """

    integers: Tensor
    scale: Tensor

    def dequantised(self) -> Tensor:
        """The weights that the integers stand for, float32 ``[m, n]``."""
        return self.integers.float().mul_(self.scale[:, None])


def quantise_rows(weight: Tensor, bits: int) -> Quantised:
    """Round a weight matrix to integers, each row to its own largest magnitude; ties go to the even integer.

    Args:
        weight: real ``[m, n]``.
        bits: 16, 8 or 4, the sign included.

    Raises:
        ConfigError: for other bits, or a weight that is not finite.
    """
    if bits not in BITS:
        raise ConfigError(f"bits={bits} is out of range: use one of {', '.join(map(str, BITS))}")
    largest = torch.linalg.vector_norm(weight, math.inf, dim=1).double()
    if not torch.isfinite(largest).all():
        raise ConfigError("the weights hold a value that is not finite: the model cannot be quantised")
    steps = 2 ** (bits - 1) - 1
    scale = torch.where(largest > 0, largest / steps, 1.0).float()
    # a row of subnormal numbers has no float32 scale left
    scale = torch.where(scale > 0, scale, torch.finfo(torch.float32).tiny)
    integers = torch.empty(weight.shape, dtype=torch.int16 if bits == 16 else torch.int8, device=weight.device)
    rows = max(1, BLOCK // weight.shape[1])
    for out, part, step in zip(*(torch.split(one, rows) for one in (integers, weight, scale.double())), strict=True):
        out.copy_((part / step[:, None]).round_())
    return Quantised(integers, scale)


class Encoded(NamedTuple):
    """Rows of activations as integers.

    Attributes:
        x: int64 ``[rows, n]``.
        step: the activation that an integer 1 stands for, a power of two for each row: float64 ``[rows, 1]``.
    """

    x: Tensor
    step: Tensor


@dataclass(frozen=True, repr=False)
class FixedPoint:
    """How rows of activations become integers before a matrix multiplies them modulo a prime, and products real again.

    Every row has a step of its own, as fine as its length allows. With integer weights ``w_i`` and an encoded row
    ``x``, ``|w_i . x| <= |w_i| |x|`` (Cauchy-Schwarz), so that ``|x| <= (p - 1) / (2 max_i |w_i|)`` keeps every output
    in ``(-p/2, p/2)``, whatever the row. Rounding adds ``sqrt(n) / 2`` to a length at most. So a row has the largest
    power of two with which its length still fits: nothing overflows, and nothing has to be known of activations
    beforehand. An outlier costs its own row bits, and no other row (reconstructed: arXiv 2407.10886 and 2510.24999
    place activations in Z_p, how could not be read; the rule is ours).

    The step depends on the activations. It stays with whoever encodes: ``decode`` is done there too, and a mask that
    is uniform in the field hides ``x`` whatever its step.

    Attributes:
        limit: the largest square of a row's length (an exact integer) for which no output can leave ``(-p/2, p/2)``.
        width: numbers in a row, ``n``.
        scale: the weight that an integer 1 stands for, by output ``[m]`` (fp32).
    """

    limit: int
    width: int
    scale: Tensor

    @classmethod
    def of(cls, integers: Tensor, scale: Tensor, field: Field) -> Self:
        """That of a matrix of integers ``[m, n]``, any integer type, whose rows stand for ``scale [m]`` each."""
        rows = max(1, BLOCK // integers.shape[1])
        longest = max(int(part.double().square_().sum(1).max()) for part in torch.split(integers, rows))
        return cls((field.prime // 2) ** 2 // max(longest, 1), integers.shape[1], scale)

    @cached_property
    def room(self) -> float:
        """The longest that a row may be before it is rounded, in steps."""
        # a hair less, so that no rounding of a float64 length can reach the bound
        return math.sqrt(self.limit) * (1 - 2.0**-40) - math.sqrt(self.width) / 2

    def encode(self, a: Tensor) -> Encoded:
        """Rows of activations as integers, rounded to their steps; ties go to the even integer.

        Args:
            a: real ``[rows, n]``, at least one.

        Raises:
            FixedPointOverflowError: for a number that is not finite.
        """
        exact = a.double()
        lengths = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
        # room / length = mantissa * 2^exponent with a mantissa from 1/2: two to exponent - 1 is the most that fits
        exponent = torch.frexp(self.room / lengths.clamp_(min=_SHORTEST)).exponent
        finest = torch.ldexp(torch.full_like(lengths, 0.5), exponent)  # steps in one
        x = (exact * finest).round_()
        # a float, since the bound of a few small weights is beyond int64; so written that what is no number fails it
        if not bool((x.square().sum(1) <= float(self.limit)).all()):
            if bool(torch.isfinite(exact).all()):
                raise FixedPointOverflowError("a row is longer than the bound: its products could leave the field")
            raise FixedPointOverflowError("an activation is not finite: it has no fixed point")
        return Encoded(x.long(), finest.reciprocal_())

    def decode(self, z: Tensor, step: Tensor) -> Tensor:
        """What products of encoded rows stand for, float32 ``[rows, m]``.

        Args:
            z: outputs as signed integers ``[rows, m]``, of any type that holds them exactly.
            step: of the rows ``[rows, 1]``.
        """
        return (z * step).mul_(self.scale).float()


_SHORTEST = 2.0**-200
"""Below the length of every row but one of zeros."""
