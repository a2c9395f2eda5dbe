"""How likely a noisy row is, given the row that it was made of: the known channel of each mechanism on vectors.

Constants that do not depend on the row are left out: likelihoods of one observation compare, those of two add up.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from smd_research.mechanisms.privacy.gaussian import clip_rows
from smd_research.mechanisms.privacy.noise import log_upper_gamma
from smd_research.mechanisms.privacy.radial import RadialParameters

Likelihood: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Log likelihoods ``[...]`` of rows ``[..., width]`` for one observed row ``[width]``."""

RADII = 32
"""Points at which the length that clipping took is summed over."""

LIKELIEST = 256
"""Rows nearest in direction whose likelihood is summed under the released law, where each costs its width times the
lengths; the others are given the least of theirs."""

_AT_THE_CLIP = 1e-3
"""A norm this near to the clipping norm (rounding on the wire) is that of a clipped row."""

_KNOTS = 8192
_ELEMENTS = 2**24


class GaussianLikelihood:
    """Clip, then add Gaussian noise.

    Args:
        sigma: standard deviation of each coordinate.
        clip: norm to which each row was clipped before.
    """

    def __init__(self, sigma: float, clip: float) -> None:
        self._sigma, self._clip = sigma, clip

    def __call__(self, rows: Tensor, observed: Tensor) -> Tensor:
        """See ``Likelihood``."""
        return -((clip_rows(rows, self._clip) - observed) ** 2).sum(-1) / (2 * self._sigma**2)


class RadialLikelihood:
    """Add radial noise (or what is released in its place), then clip what comes out.

    Clipping keeps the direction and loses the length, so a clipped row's likelihood is that of its direction: the
    density of the noise summed over all lengths ``r`` from the clipping norm on, with the volume ``r^(d-1)`` they have.

    Args:
        noise: what is published.
    """

    def __init__(self, noise: RadialParameters) -> None:
        self._noise = noise
        self._width = 0

    def __call__(self, rows: Tensor, observed: Tensor) -> Tensor:
        """See ``Likelihood``."""
        self._width = rows.shape[-1]
        clip, length = self._noise.clip, float(observed.norm())
        if clip is None or length < clip * (1 - _AT_THE_CLIP):
            return self._density(rows - observed)
        direction, longest = observed.double() / length, float(rows.norm(dim=-1).max())
        radii, weights = (one.to(rows.device) for one in self._lengths(clip, longest))
        flat = rows.reshape(-1, self._width)
        if self._noise.sampler == "released" and len(flat) > LIKELIEST:
            nearest = (torch.nn.functional.normalize(flat, dim=-1) @ direction.to(flat)).topk(LIKELIEST).indices
            exact = self._of_direction(flat[nearest].double(), direction, radii, weights)
            found = exact.min().expand(len(flat)).index_put((nearest,), exact)
        else:
            size = max(1, _ELEMENTS // (RADII * self._width))
            parts = [self._of_direction(part.double(), direction, radii, weights) for part in torch.split(flat, size)]
            found = torch.cat(parts)
        return found.reshape(rows.shape[:-1]).to(rows)

    def _of_direction(self, rows: Tensor, direction: Tensor, radii: Tensor, weights: Tensor) -> Tensor:
        if self._noise.sampler == "radial":
            squared = radii**2 - 2 * radii * (rows @ direction)[:, None] + (rows**2).sum(-1, keepdim=True)
            density = -self._noise.epsilon * squared.clamp_min(0).sqrt()
        else:
            density = self._density(radii[:, None] * direction - rows[:, None])
        summed: Tensor = torch.logsumexp(weights.to(density) + density, -1)
        return summed

    def _lengths(self, clip: float, longest: float) -> tuple[Tensor, Tensor]:
        """Nodes and log weights ``[RADII]`` of the sum over lengths, where noise and row together may end.

        The norm of the noise lies within eight deviations of its mean, and a row moves it by its own norm at most.
        """
        width, epsilon = self._width, self._noise.epsilon
        if self._noise.sampler == "radial":
            mean, deviation = width / epsilon, width**0.5 / epsilon
        else:  # of Gamma times Uniform in each coordinate
            second = width * (width + 1) / 3 / epsilon**2
            mean, deviation = (width * second) ** 0.5, second**0.5
        high = max(mean + 8 * deviation + longest, clip + longest + 40 / epsilon)
        low = min(max(clip, mean - 8 * deviation - longest), high)
        nodes, weights = np.polynomial.legendre.leggauss(RADII)
        radii = torch.from_numpy(low + (high - low) * (nodes + 1) / 2)
        logs: Tensor = torch.from_numpy(np.log(weights)) + (width - 1) * radii.log()
        return radii, logs

    def _density(self, noise: Tensor) -> Tensor:
        """Log density ``[...]`` of noise ``[..., width]``, but for a constant."""
        if self._noise.sampler == "radial":
            distances: Tensor = noise.norm(dim=-1)
            return -self._noise.epsilon * distances
        knots, values = _coordinate(self._width)
        step = float(knots[1])
        place = (noise.abs() * (self._noise.epsilon / step)).clamp_max(_KNOTS - 1.001)
        left = place.long()
        table = values.to(noise)
        density: Tensor = torch.lerp(table[left], table[left + 1], place - left).sum(-1)
        return density


@lru_cache(maxsize=4)
def _coordinate(width: int) -> tuple[Tensor, Tensor]:
    """``log Q(d - 1, x)`` at equal steps, up to where no coordinate comes."""
    knots = np.linspace(0.0, 4.0 * width + 40.0 * width**0.5, _KNOTS)
    return torch.from_numpy(knots), torch.from_numpy(log_upper_gamma(width - 1, knots))
