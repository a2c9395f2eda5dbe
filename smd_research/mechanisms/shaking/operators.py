"""The operators of vertical shaking: transformations of an embedding table (reconstructed; arXiv 2403.07283).

The operators' names are the paper's, their formulas ours. With ``e`` a row of width ``d``, ``sigma`` the standard
deviation of all entries of the table before any operator, and a strength ``a``:

``addv``
    ``e + a sigma r``, one ``r ~ N(0, I)`` for the whole table
``inflate``
    ``e (I + a diag(u))``, ``u ~ U(-1, 1)``; invertible for ``a < 1``
``tilt``
    ``e R``, ``R = expm(a (A - A^T) / sqrt(2 d))``, ``A`` standard normal: an orthogonal matrix
``dx_fixp``
    ``e + G v / |v|``, ``v ~ N(0, I)``, ``G ~ Gamma(d, a sigma / sqrt(d))``: the noise of metric differential privacy of
    ``eps = sqrt(d) / (a sigma)`` per unit of distance, of mean norm ``a sigma sqrt(d)``; drawn once for a row and then
    fixed, so that the promise of that privacy does not hold
``gaussian``
    ``e + N(0, (a sigma)^2 I)``, fixed for a row
``laplace``
    ``e + Lap(a sigma / sqrt(2))`` in every entry, fixed for a row; of deviation ``a sigma`` too

The first three are affine and the same for every row: they keep the geometry of the table, up to an affine map.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy.linalg import expm

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.shaking.streams import Floats, KeyStream

Operator = Callable[[Floats, float, KeyStream, float], Floats]
Vertical = tuple[tuple[str, float], ...]


def addv(table: Floats, strength: float, stream: KeyStream, sigma: float) -> Floats:
    """One random vector added to every row of ``table [V, d]``; see the module, as for the other operators."""
    return table + strength * sigma * stream.normal(table.shape[1])


def inflate(table: Floats, strength: float, stream: KeyStream, sigma: float) -> Floats:
    """Every column of ``table [V, d]`` scaled by itself."""
    return table * (1 + strength * (2 * stream.uniform(table.shape[1]) - 1))


def tilt(table: Floats, strength: float, stream: KeyStream, sigma: float) -> Floats:
    """The rows of ``table [V, d]`` turned by one orthogonal matrix."""
    width = table.shape[1]
    generator = stream.normal(width, width)
    turned: Floats = table @ expm(strength * (generator - generator.T) / math.sqrt(2 * width))
    return turned


def dx_fixp(table: Floats, strength: float, stream: KeyStream, sigma: float) -> Floats:
    """Noise of a uniform direction and a Gamma norm on every row of ``table [V, d]``."""
    rows, width = table.shape
    direction = stream.normal(rows, width)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return table + stream.gamma(width, strength * sigma / math.sqrt(width), rows)[:, None] * direction


def gaussian(table: Floats, strength: float, stream: KeyStream, sigma: float) -> Floats:
    """Gaussian noise on every entry of ``table [V, d]``."""
    return table + strength * sigma * stream.normal(*table.shape)


def laplace(table: Floats, strength: float, stream: KeyStream, sigma: float) -> Floats:
    """Laplace noise on every entry of ``table [V, d]``."""
    centred = stream.uniform(*table.shape) - 0.5
    noise: Floats = -np.sign(centred) * np.log1p(-2 * np.abs(centred))
    return table + strength * sigma / math.sqrt(2) * noise


AFFINE: Mapping[str, Operator] = {"addv": addv, "inflate": inflate, "tilt": tilt}
OPERATORS: Mapping[str, Operator] = {**AFFINE, "dx_fixp": dx_fixp, "gaussian": gaussian, "laplace": laplace}


def check_vertical(vertical: Vertical) -> None:
    """Checks that every operator is known and every strength a number from 0.

    Raises:
        ConfigError: naming what is wrong.
    """
    for name, strength in vertical:
        if name not in OPERATORS:
            raise ConfigError(f"the vertical operator '{name}' is unknown: use some of {', '.join(OPERATORS)}")
        if not (math.isfinite(strength) and strength >= 0):
            raise ConfigError(f"the strength {strength:g} of {name} is out of range: it is a number from 0")
