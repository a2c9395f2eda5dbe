"""Real numbers as integers: weights by row, activations by a common number of fraction bits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.core.errors import ConfigError, LabError

BITS = (16, 8, 4)


class FixedPointOverflowError(LabError, OverflowError):
    """A number beyond the bound that a calibration set for it; nothing is ever clipped."""


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
    largest = weight.abs().amax(1).double()
    if not torch.isfinite(largest).all():
        raise ConfigError("the weights hold a value that is not finite: the model cannot be quantised")
    steps = 2 ** (bits - 1) - 1
    scale = torch.where(largest > 0, largest / steps, 1.0).float()
    # a row of subnormal numbers has no float32 scale left
    scale = torch.where(scale > 0, scale, torch.finfo(torch.float32).tiny)
    integers = (weight / scale.double()[:, None]).round_()
    return Quantised(integers.to(torch.int16 if bits == 16 else torch.int8), scale)


def encode(a: Tensor, fraction_bits: int, limit: int) -> Tensor:
    """Activations as integers: ``round(a * 2**fraction_bits)``, ties to even.

    Args:
        a: real ``[rows, n]``, at least one.
        fraction_bits: bits after the binary point.
        limit: largest magnitude of an integer that may arise, below 2^53.

    Returns:
        int64 ``[rows, n]``.

    Raises:
        FixedPointOverflowError: where an integer exceeds ``limit`` or a number is not finite.
    """
    x = a.double().mul_(2.0**fraction_bits).round_()
    low, high = torch.aminmax(x)
    peak = max(-float(low), float(high))
    # written so that a number that is not a number fails it
    if not (-limit <= float(low) and float(high) <= limit):
        raise FixedPointOverflowError(
            f"an activation of {peak * 2.0**-fraction_bits:.4g} exceeds the calibrated bound of "
            f"{limit * 2.0**-fraction_bits:.4g}: raise margin_bits or calibrate on text like this"
        )
    return x.long()
