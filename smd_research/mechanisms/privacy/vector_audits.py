"""Audits of mechanisms on vectors: what each claims, what it gives, and whether the one covers the other."""

import math

import numpy as np
import torch
from scipy.stats import chi2, kstest, norm

from smd_research.core.claim_audit import ClaimAudit
from smd_research.mechanisms.privacy.audit import audit_radial_noise
from smd_research.mechanisms.privacy.embedding_space import Floats
from smd_research.mechanisms.privacy.gaussian import GaussianMechanism, GaussianParameters, gaussian_epsilon
from smd_research.mechanisms.privacy.noise import log_upper_gamma
from smd_research.mechanisms.privacy.radial import RadialMechanism

CONFIDENCE = 0.999
_EXACT = 1e-9
_FAR = 1e4
_BEYOND = 1e3  # times the clip: far enough that a clip left out shows, whatever the noise
RADIAL = "epsilon of a unit of Euclidean distance"


def audit_calibration(known: GaussianParameters, rows: int = 1) -> ClaimAudit:
    """The epsilon that is claimed of Gaussian noise, against the exact one of the published deviation at ``2C``.

    Args:
        known: as published.
        rows: of a message.
    """
    mechanism = GaussianMechanism(known.epsilon, known.delta, known.clip, known.unit, known.calibration)
    measured = gaussian_epsilon(known.sigma_of(rows), known.delta, mechanism.sensitivity(rows))
    how = f"exact delta of Gaussian noise at distance 2C, C={mechanism.norm(rows):.4g}, delta={known.delta:g}"
    return _exact("epsilon of one release, at its delta", known.epsilon, measured, how)


def audit_release(
    known: GaussianParameters, rng: np.random.Generator, rows: int = 1, draws: int = 20_000
) -> ClaimAudit:
    """Epsilon of what is really sent of two opposite states far beyond the clip.

    The deviation that is published says nothing of a clip that is left out, or of noise that is drawn smaller. What was
    sent bounds both: how far the two lie apart from below, and the deviation around them from above.

    Args:
        known: as published.
        rng: source of randomness.
        rows: of a message.
        draws: messages of each of the two.
    """
    mechanism = GaussianMechanism(known.epsilon, known.delta, known.clip, known.unit, known.calibration)
    state = torch.full((rows, 1), _BEYOND * known.clip, dtype=torch.float64)
    sent = np.stack(
        [[mechanism.release(sign * state, rng)[:, 0].numpy() for _ in range(draws)] for sign in (1.0, -1.0)]
    )
    noise = sent - sent.mean(1, keepdims=True)
    error, spread = (1 - CONFIDENCE) / 2, float((noise**2).sum())
    sigma = math.sqrt(spread / float(chi2.ppf(error, noise.size - 2 * rows)))
    gap = float((sent[0] - sent[1]).mean(0).sum()) / math.sqrt(rows)
    apart = gap - float(norm.ppf(1 - error)) * sigma * math.sqrt(2 / draws)
    at_least = gaussian_epsilon(sigma, known.delta, apart) if apart > 0 else 0.0
    normal = float(kstest(noise.ravel() / math.sqrt(spread / noise.size), norm.cdf).pvalue) > 1 - CONFIDENCE
    return ClaimAudit(
        "epsilon of one release, of two opposite states far beyond the clip",
        known.epsilon,
        at_least,
        at_least <= known.epsilon and normal,
        f"distance and noise of what is sent, at least at {CONFIDENCE:.1%} confidence; test of the normal law",
        draws,
        exact=False,
    )


def audit_radial(mechanism: RadialMechanism, rng: np.random.Generator, draws: int = 4000) -> ClaimAudit:
    """Epsilon of a unit of Euclidean distance for which noise on a row was scaled, against what its law gives.

    The density of radial noise falls by exactly its epsilon a unit, so what is tested is that samples have that law.
    The law that was released has a density, whose ratio is computed far out along a diagonal, where it is largest.

    Args:
        mechanism: audited before its clipping, which is post-processing.
        rng: source of randomness.
        draws: of the noise, well above its dimension.
    """
    if mechanism.sampler == "released":
        measured = _released_slope(mechanism)
        how = f"exact ratio of densities along a diagonal of {mechanism.width} dimensions"
        return _exact(RADIAL, mechanism.epsilon, measured, how)
    return radial_law(RADIAL, mechanism.noise(draws, rng).numpy(), mechanism.epsilon)


def radial_law(claim: str, noise: Floats, epsilon: float) -> ClaimAudit:
    """Whether samples have the density ``exp(-epsilon * norm)``: its scale by their summed norms, and its directions.

    Args:
        claim: in words.
        noise: independent samples ``[n, d]``.
        epsilon: of the claim.
    """
    twice = 2 * float(np.linalg.norm(noise, axis=1).sum())  # times epsilon a chi-square of 2 n d
    at_least = float(chi2.ppf(1 - CONFIDENCE, 2 * noise.size)) / twice
    return ClaimAudit(
        claim,
        epsilon,
        at_least,
        at_least <= epsilon and not audit_radial_noise(noise, epsilon).refuted(),
        f"epsilon of the noise at least, at {CONFIDENCE:.1%} confidence; tests of radius and direction",
        len(noise),
        exact=False,
    )


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
