"""Audits of mechanisms on vectors: what each claims, what it gives, and whether the one covers the other."""

import math

import numpy as np

from smd_research.core.claim_audit import ClaimAudit
from smd_research.mechanisms.privacy.audit import audit_radial_noise
from smd_research.mechanisms.privacy.gaussian import GaussianMechanism, gaussian_epsilon
from smd_research.mechanisms.privacy.noise import log_upper_gamma
from smd_research.mechanisms.privacy.radial import RadialMechanism

_EXACT = 1e-9
_FAR = 1e4
RADIAL = "epsilon of a unit of Euclidean distance"


def audit_calibration(mechanism: GaussianMechanism, rows: int = 1) -> ClaimAudit:
    """The epsilon for which Gaussian noise was scaled, against the exact one at distance ``2C``.

    Args:
        mechanism: clips to ``C`` and noises.
        rows: of a message.
    """
    measured = gaussian_epsilon(mechanism.sigma(rows), mechanism.delta, mechanism.sensitivity(rows))
    how = f"exact delta of Gaussian noise at distance 2C, C={mechanism.norm(rows):.4g}, delta={mechanism.delta:g}"
    return _exact("epsilon of one release, at its delta", mechanism.epsilon, measured, how)


def audit_radial(mechanism: RadialMechanism, rng: np.random.Generator, draws: int = 4000) -> ClaimAudit:
    """Epsilon of a unit of Euclidean distance for which noise on a row was scaled, against what its law gives.

    The density of radial noise falls by exactly its epsilon a unit, so what is tested is that samples have that law;
    the epsilon measured is the one that explains their norms best. The law that was released has a density, whose ratio
    is computed far out along a diagonal, where it is largest.

    Args:
        mechanism: audited before its clipping, which is post-processing.
        rng: source of randomness.
        draws: of the noise, well above its dimension.
    """
    if mechanism.sampler == "released":
        measured = _released_slope(mechanism)
        how = f"exact ratio of densities along a diagonal of {mechanism.width} dimensions"
        return _exact(RADIAL, mechanism.epsilon, measured, how)
    noise = mechanism.noise(draws, rng).numpy()
    measured = mechanism.width / float(np.linalg.norm(noise, axis=1).mean())
    how = "norms against Gamma (Kolmogorov-Smirnov), directions against the uniform law; epsilon of best fit"
    refuted = audit_radial_noise(noise, mechanism.epsilon).refuted()
    return ClaimAudit(RADIAL, mechanism.epsilon, measured, not refuted, how, draws, exact=False)


def _released_slope(mechanism: RadialMechanism) -> float:
    """Fall of the released log density for a unit of Euclidean distance, far out along the diagonal."""
    width, epsilon = mechanism.width, mechanism.epsilon
    place = np.array([_FAR * width, _FAR * width + 1.0])
    nearer, further = log_upper_gamma(width - 1, place)
    return float(width * (nearer - further) * epsilon / math.sqrt(width))


def audit_clipped_laplace(epsilon: float, clip: float, width: int) -> ClaimAudit:
    """Laplace noise on a vector clipped in the L2 norm, scaled as if ``2C`` were its L1 sensitivity (ADePT's flaw).

    Two vectors of norm ``C`` lie up to ``2C sqrt(d)`` apart in the L1 norm, and outputs beyond both on a diagonal tell
    them apart by all of it (Habernal, EMNLP 2021).

    Args:
        epsilon: for which the noise is scaled.
        clip: ``C``.
        width: dimension ``d``.
    """
    scale = 2 * clip / epsilon
    corner = np.full(width, clip / math.sqrt(width))
    output = 2 * corner
    measured = float((np.abs(output + corner) - np.abs(output - corner)).sum() / scale)
    how = f"exact log ratio of the worst pair on a sphere of {width} dimensions"
    return _exact("epsilon of one release", epsilon, measured, how)


def _exact(claim: str, claimed: float, measured: float, how: str) -> ClaimAudit:
    return ClaimAudit(claim, claimed, measured, measured <= claimed * (1 + _EXACT), how, 1)
