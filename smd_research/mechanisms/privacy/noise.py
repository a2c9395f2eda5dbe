"""Radial noise of metric differential privacy: density proportional to ``exp(-epsilon * ||z||)``."""

import numpy as np

from smd_research.mechanisms.privacy.embedding_space import Floats


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
