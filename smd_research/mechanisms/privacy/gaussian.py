"""The analytic Gaussian mechanism (Balle and Wang, ICML 2018) on clipped vectors.

All tails are computed as logarithms in float64: the textbook difference of two error functions cancels at large
epsilon, and the classical ``sqrt(2 ln(1.25/delta))/epsilon`` is no theorem above epsilon one (it under-noises from
about 8.4 on at delta 1e-5).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import log_ndtr

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee

Unit = Literal["token", "sequence"]
UNITS: tuple[Unit, ...] = get_args(Unit)
Calibration = Literal["corrected", "released"]
CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)


def log_delta(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """Logarithm of the exact ``delta(epsilon)`` of Gaussian noise (Balle and Wang 2018, Theorem 8).

    ``delta = Phi(D/2s - eps s/D) - e^eps Phi(-D/2s - eps s/D)`` for deviation ``s`` and sensitivity ``D``.

    Args:
        sigma: standard deviation of each coordinate.
        epsilon: non-negative.
        sensitivity: largest Euclidean distance between the vectors of two neighbours.
    """
    half = sensitivity / (2 * sigma)
    shift = epsilon * sigma / sensitivity
    upper = float(log_ndtr(half - shift))
    ratio = epsilon + float(log_ndtr(-half - shift)) - upper
    return upper + math.log(-math.expm1(ratio)) if ratio < 0 else -math.inf


def gaussian_delta(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """The exact ``delta`` of Gaussian noise at ``epsilon``; see :func:`log_delta`."""
    return math.exp(log_delta(sigma, epsilon, sensitivity))


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest standard deviation that gives ``(epsilon, delta)`` at this sensitivity.

    Raises:
        ConfigError: unless epsilon > 0, 0 < delta < 1, sensitivity > 0, all finite.
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1 and 0 < sensitivity < math.inf):
        raise ConfigError(
            f"Gaussian noise needs epsilon > 0, 0 < delta < 1, sensitivity > 0; got {epsilon:g}, {delta:g}, "
            f"{sensitivity:g}"
        )
    target = math.log(delta)

    def excess(log_ratio: float) -> float:
        return max(log_delta(math.exp(log_ratio), epsilon), -1e6) - target

    low = high = 0.0
    while excess(low) < 0:
        low -= 1.0
    while excess(high) > 0:
        high += 1.0
    ratio = math.exp(float(brentq(excess, low - 1e-9, high + 1e-9, xtol=1e-14, rtol=1e-14)))
    # The root may lie a rounding error on the wrong side: step up until the promise holds.
    while log_delta(ratio, epsilon) > target:
        ratio *= 1 + 1e-14
    return ratio * sensitivity


def gaussian_epsilon(sigma: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest ``epsilon`` at which Gaussian noise has this ``delta``; 0 when even epsilon 0 suffices."""
    target = math.log(delta)

    def excess(epsilon: float) -> float:
        return max(log_delta(sigma, epsilon, sensitivity), -1e6) - target

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-12, rtol=1e-14))


def clip_rows(states: torch.Tensor, norm: float) -> torch.Tensor:
    """Scale each row of ``[n, d]`` down to Euclidean norm at most ``norm``; rows inside are untouched."""
    lengths = states.norm(dim=-1, keepdim=True)
    factors = (norm / lengths.clamp_min(torch.finfo(states.dtype).tiny)).clamp_max(1.0)
    return torch.mul(states, factors)


def clip_frobenius(states: torch.Tensor, norm: float) -> torch.Tensor:
    """Scale the whole matrix ``[n, d]`` down to Frobenius norm at most ``norm``.

    Only rows of the sequence may be passed: padding must not take part.
    """
    length = float(states.norm())
    return states * min(1.0, norm / length) if length > 0 else states


@dataclass(frozen=True)
class GaussianMechanism:
    """Clip to norm ``C``, add Gaussian noise for sensitivity ``2C`` (replacement: two clipped vectors differ by 2C).

    The code of DP-Forward scales the noise for sensitivity one, whatever ``C`` is: ``calibration="released"`` does the
    same, and its guarantee states what that gives, the epsilon of the same noise at ``2C``.

    Attributes:
        epsilon: of one release.
        delta: of one release.
        clip: norm allowed to a row on average, ``c``.
        unit: ``"token"``: each row is clipped to ``C = c`` and protected by itself, sound only where a row depends on
            one token alone (the embedding layer); ``"sequence"``: all ``n`` rows of a message are one vector, clipped
            to Frobenius norm ``C = c sqrt(n)`` (``n`` is public) and protected as one.
        calibration: ``corrected`` for ``2C``, or ``released`` for one.
    """

    epsilon: float
    delta: float
    clip: float
    unit: Unit
    calibration: Calibration = "corrected"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"unknown unit {self.unit!r}: choose {' or '.join(UNITS)}")
        if self.calibration not in CALIBRATIONS:
            raise ConfigError(f"unknown calibration {self.calibration!r}: choose {' or '.join(CALIBRATIONS)}")
        if not 0 < self.clip < math.inf:
            raise ConfigError(f"the clipping norm must be positive and finite, not {self.clip:g}")
        gaussian_sigma(self.epsilon, self.delta)

    def norm(self, rows: int) -> float:
        """The norm ``C`` to which a release of this many rows is clipped."""
        return self.clip if self.unit == "token" else self.clip * math.sqrt(rows)

    def sensitivity(self, rows: int) -> float:
        """Distance of neighbours under replacement, ``2C``."""
        return 2.0 * self.norm(rows)

    @cached_property
    def noise_multiplier(self) -> float:
        """Standard deviation at sensitivity one."""
        return gaussian_sigma(self.epsilon, self.delta)

    def sigma(self, rows: int) -> float:
        """Standard deviation of each coordinate in a message of this many rows."""
        return self.noise_multiplier * (1.0 if self.calibration == "released" else self.sensitivity(rows))

    def true_epsilon(self, rows: int = 1, releases: int = 1) -> float:
        """Exact epsilon, at the same delta, of so many releases of so many rows each, whatever the noise was made for.

        Neighbours lie ``2C`` apart, and n releases are one of sqrt(n) times the sensitivity.
        """
        if self.calibration == "corrected":
            return self.epsilon if releases == 1 else self.composed_epsilon(releases)
        return gaussian_epsilon(self.sigma(rows), self.delta, self.sensitivity(rows) * math.sqrt(releases))

    def clipped(self, states: torch.Tensor) -> torch.Tensor:
        """The states ``[n, d]`` as released but for the noise."""
        norm = self.norm(len(states))
        return clip_rows(states, norm) if self.unit == "token" else clip_frobenius(states, norm)

    def release(self, states: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Clipped states ``[n, d]`` plus fresh noise, in the dtype of the states (the noise is drawn in float64)."""
        noise = torch.from_numpy(rng.standard_normal(tuple(states.shape)) * self.sigma(len(states)))
        return (self.clipped(states.double().cpu()) + noise).to(device=states.device, dtype=states.dtype)

    def composed_epsilon(self, releases: int) -> float:
        """Exact epsilon of several releases at the same delta: n of them are one of sqrt(n) times the sensitivity."""
        return gaussian_epsilon(self.noise_multiplier, self.delta, math.sqrt(releases))

    @property
    def parameters(self) -> "GaussianParameters":
        """As published."""
        return GaussianParameters(self.unit, self.epsilon, self.delta, self.clip, self.sigma(1), self.calibration)

    def guarantee(self) -> Guarantee:
        """What one release is promised, and what a prompt costs."""
        examples = ", ".join(f"n={n}: {self.true_epsilon(releases=n):.4g}" for n in (1, 16, 64))
        claim = "" if self.calibration == "corrected" else f"; the noise is for epsilon={self.epsilon:g} at C=1/2"
        # noise that does not grow with the norm allowed protects longer messages less: nothing bounds all of them
        bounded = self.calibration == "corrected" or self.unit == "token"
        if not bounded:
            longer = ", ".join(f"of {rows} rows {self.true_epsilon(rows):.4g}" for rows in (16, 64))
            claim += f"; of one row, and a message {longer}"
        counted = {
            "token": "a prompt of n tokens (every row one release)",
            "sequence": "n messages of one request (the prompt's states, then a row for each token but the last)",
        }[self.unit]
        adjacency = {"token": "replacement of one token", "sequence": "replacement of the whole prompt, same length"}
        return Guarantee(
            notion="(epsilon, delta)-LDP",
            unit=self.unit,
            epsilon=self.true_epsilon(),
            delta=self.delta,
            metric="Euclidean" if self.unit == "token" else "Frobenius",
            adjacency=adjacency[self.unit],
            sensitivity=self.sensitivity(1),
            clip=self.clip,
            composition=f"{counted} costs, exactly and at the same delta, epsilon {examples}{claim}",
            unit_epsilon=self.true_epsilon() if bounded else None,
            support="every vector, whatever the input",
            assumptions="clip norm chosen without seeing the prompt; length visible; sensitivity stated for one row",
            verified="exact delta at distance 2C, Monte-Carlo worst-pair bound (mechanisms.audit)",
            source="analytic Gaussian mechanism, Balle and Wang, ICML 2018; adaptive composition, Dong et al. 2022",
        )


@dataclass(frozen=True)
class GaussianParameters:
    """What is published of Gaussian noise; where it is not published, there is none.

    Attributes:
        unit: ``token`` or ``sequence``, as :class:`GaussianMechanism` has them.
        epsilon: of one release.
        delta: of one release.
        clip: norm allowed to a row on average.
        sigma: standard deviation of each coordinate in a message of one row.
        calibration: whether the noise grows with what is allowed to a message, as :class:`GaussianMechanism` has them.
    """

    unit: Unit
    epsilon: float
    delta: float
    clip: float
    sigma: float
    calibration: Calibration = "corrected"

    def sigma_of(self, rows: int) -> float:
        """Standard deviation of each coordinate in a message of this many rows."""
        grows = self.unit == "sequence" and self.calibration == "corrected"
        return self.sigma * math.sqrt(rows) if grows else self.sigma
