"""Metric differential privacy of a vector: radial noise on a row of the embedding, sent as a vector.

The row is not clipped before: the promise grows with the distance of two rows. Clipping *after* the noise is
post-processing, which costs nothing and hides nothing but the length.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee, check_epsilon
from smd_research.mechanisms.privacy.gaussian import clip_rows
from smd_research.mechanisms.privacy.noise import SAMPLERS, Sampler, radial_noise, released_noise


@dataclass(frozen=True)
class RadialMechanism:
    """Add noise to each row by itself, then clip what comes out, where a norm is given.

    Attributes:
        epsilon: of one row and unit of distance, as the noise is scaled for it.
        width: dimension ``d`` of a row.
        diameter: no two rows of the public table lie further apart.
        sampler: ``radial`` (density proportional to ``exp(-epsilon * ||z||)``), or ``released``, as the code of
            Split-and-Denoise draws it.
        clip: largest norm of a noisy row; None leaves it.

    Raises:
        ConfigError: for a value out of range.
    """

    epsilon: float
    width: int
    diameter: float = math.inf
    sampler: Sampler = "radial"
    clip: float | None = None

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"unknown sampler {self.sampler!r}: choose {' or '.join(SAMPLERS)}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError(f"the clipping norm must be positive and finite, not {self.clip:g}")

    def noise(self, rows: int, rng: np.random.Generator) -> Tensor:
        """Fresh noise ``[rows, d]``, float64."""
        draw = radial_noise if self.sampler == "radial" else released_noise
        return torch.from_numpy(draw(rows, self.width, self.epsilon, rng))

    def release(self, states: Tensor, rng: np.random.Generator) -> Tensor:
        """Noisy rows ``[n, d]`` in the type of the states (the noise is drawn and added in float64)."""
        noisy = states.double().cpu() + self.noise(len(states), rng)
        noisy = noisy if self.clip is None else clip_rows(noisy, self.clip)
        return noisy.to(device=states.device, dtype=states.dtype)

    @property
    def true_epsilon(self) -> float:
        """Of a unit of Euclidean distance: what the noise gives, whatever it was scaled for.

        The released law is exactly ``epsilon`` times the L1 distance, which is up to ``sqrt(d)`` times the Euclidean.
        """
        return self.epsilon * (1.0 if self.sampler == "radial" else math.sqrt(self.width))

    @property
    def parameters(self) -> "RadialParameters":
        """As published."""
        return RadialParameters(self.epsilon, self.sampler, self.clip)

    def guarantee(self) -> Guarantee:
        """What one row is promised, and what a text costs."""
        worst = self.true_epsilon * self.diameter
        claim = "" if self.sampler == "radial" else f"; the noise was scaled for epsilon={self.epsilon:g}"
        return Guarantee(
            notion="metric-DP",
            unit="token and unit of distance",
            epsilon=self.true_epsilon,
            metric=f"Euclidean distance of raw embedding rows, diameter at most {self.diameter:.3g}",
            adjacency="replacement of tokens; prompts of equal length",
            clip=self.clip,
            composition=(
                f"any one token at most {worst:.4g}-LDP; a prompt of n tokens the sum of epsilon*d over its positions, "
                f"at most n*{worst:.4g}{claim}"
            ),
            unit_epsilon=worst if math.isfinite(worst) else None,
            support="every vector, whatever the input" if self.clip is None else "every vector up to the clipping norm",
            assumptions="public embedding table; length visible; a row depends on one token alone; float64 sampling",
            verified="radius law and isotropy of the noise, exact ratio of densities (mechanisms.audit)",
            source="token representation privatisation, Qu et al., CIKM 2021; Split-and-Denoise, ICML 2024",
        )


@dataclass(frozen=True)
class RadialParameters:
    """What is published of radial noise on vectors.

    Attributes:
        epsilon: for which the noise is scaled.
        sampler: which law it has, as :class:`RadialMechanism` has them.
        clip: largest norm of a noisy row; None leaves it.
    """

    epsilon: float
    sampler: Sampler
    clip: float | None
