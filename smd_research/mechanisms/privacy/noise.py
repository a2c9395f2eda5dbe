"""Radial noise of metric differential privacy: density proportional to ``exp(-epsilon * ||z||)``; and its impostor."""

from typing import Literal, get_args

import numpy as np
from scipy.special import gammaincc, gammaln

from smd_research.mechanisms.privacy.embedding_space import Floats

Sampler = Literal["radial", "released"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

_FRACTIONS = 200


def standard_radial_noise(count: int, width: int, rng: np.random.Generator) -> Floats:
    """Noise at ``epsilon = 1``; divide by epsilon for any other (the family is a scale family).

    One direction, uniform on the sphere, times *one* radius from Gamma(width, 1) (Feyisetan et al., WSDM 2020, §2.6).
    Drawing a radius for each coordinate, as some released code does, gives another law with a far weaker guarantee.

    Args:
        count: number of vectors.
        width: dimension ``d``.
        rng: source of randomness.

    Returns:
        ``[count, width]`` float64.
    """
    directions = rng.standard_normal((count, width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * rng.gamma(shape=width, scale=1.0, size=(count, 1))


def radial_noise(count: int, width: int, epsilon: float, rng: np.random.Generator) -> Floats:
    """Noise with density proportional to ``exp(-epsilon * ||z||_2)``, ``[count, width]``, mean norm width/epsilon."""
    return standard_radial_noise(count, width, rng) / epsilon


def released_noise(count: int, width: int, epsilon: float, rng: np.random.Generator) -> Floats:
    """What the code of Split-and-Denoise draws for radial noise: Gamma times Uniform in each coordinate by itself.

    Its norm is about ``sqrt(width / 3)`` times that of radial noise, and its law another one
    (:func:`released_log_density`).
    """
    radii = rng.gamma(shape=width, scale=1 / epsilon, size=(count, width))
    return radii * rng.uniform(-1.0, 1.0, size=(count, width))


def released_log_density(noise: Floats, epsilon: float) -> Floats:
    """Logarithm of the density of :func:`released_noise` at vectors ``[..., width]``: ``[...]``.

    A coordinate has density ``epsilon / (2 (d - 1)) Q(d - 1, epsilon |z|)`` with the upper regularised gamma function
    ``Q``: flat up to about ``d / epsilon``, then falling by less than ``epsilon`` a unit. Neighbours therefore differ
    by at most ``epsilon`` times their L1 distance, ``sqrt(d)`` times what is claimed for the Euclidean one, and far out
    along a diagonal they do.
    """
    width = noise.shape[-1]
    one = log_upper_gamma(width - 1, epsilon * np.abs(noise)) + np.log(epsilon / (2 * (width - 1)))
    density: Floats = one.sum(-1)
    return density


def log_upper_gamma(shape: float, x: Floats) -> Floats:
    """``log Q(shape, x)`` for ``x >= 0``, also where ``Q`` itself is below the smallest double."""
    far = x > shape + 20 * np.sqrt(shape) + 20
    with np.errstate(divide="ignore"):
        found: Floats = np.log(gammaincc(shape, np.where(far, 0.0, x)))
    beyond, tail = x[far], np.zeros(int(far.sum()))
    for k in range(_FRACTIONS, 0, -1):  # the continued fraction of the incomplete gamma function (DLMF 8.9.2)
        tail = k * (k - shape) / (beyond + 2 * k + 1 - shape - tail)
    found[far] = shape * np.log(beyond) - beyond - gammaln(shape) - np.log(beyond + 1 - shape - tail)
    return found
