"""A small network behind the client's blocks, and the measures of public states that it works in."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

EXPANSION = 2
"""Units of the hidden layer for each coordinate of a state."""


@dataclass(frozen=True, repr=False, eq=False)
class Moments:
    """Measures of public states.

    Attributes:
        mean: of each coordinate ``[width]``.
        scale: standard deviation of each, positive ``[width]``.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, states: Tensor) -> "Moments":
        """Those of states ``[rows, width]``."""
        spread = states.std(0, correction=0)
        return cls(states.mean(0), spread.clamp_min(1e-3 * float(spread.max().clamp_min(1e-6))))

    @property
    def unit(self) -> float:
        """Root mean square of the deviations: what a coordinate's noise is measured in."""
        return float(self.scale.square().mean().sqrt())


class Adapter(nn.Module):
    """A network of one hidden layer added to each row by itself; it starts as the identity.

    Row by row, so that generated tokens go through it as the prompt's do, and caches stay as they are.

    Args:
        moments: of the states that it will see.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        width = len(moments.mean)
        self.register_buffer("mean", moments.mean)
        self.register_buffer("scale", moments.scale)
        self.up = nn.Linear(width, EXPANSION * width)
        self.down = nn.Linear(EXPANSION * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def standardised(self, states: Tensor) -> Tensor:
        """States ``[..., width]`` in units of their public deviations from their public mean."""
        return (states - self.mean) / self.scale

    def forward(self, states: Tensor) -> Tensor:
        """Adapted states ``[..., width]``."""
        change: Tensor = self.down(torch.nn.functional.gelu(self.up(self.standardised(states))))
        return states + self.scale * change
