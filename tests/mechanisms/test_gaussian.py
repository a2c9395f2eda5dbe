"""The analytic Gaussian is calibrated exactly, for sensitivity 2C, and under-noised ones are refuted."""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.audit import pair_lower_bound
from smd_research.mechanisms.privacy.gaussian import (
    GaussianMechanism,
    clip_frobenius,
    clip_rows,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
)
from smd_research.mechanisms.privacy.vector_audits import audit_calibration

# sigma / sensitivity at delta 1e-5, cross-checked elsewhere with an independent accountant.
KNOWN = {0.5: 7.032, 1: 3.731, 2: 1.994, 3: 1.391, 4: 1.081, 8: 0.600, 16: 0.344}


@pytest.mark.parametrize(("epsilon", "ratio"), KNOWN.items())
def test_sigma_matches_the_known_values(epsilon: float, ratio: float) -> None:
    assert gaussian_sigma(epsilon, 1e-5) == pytest.approx(ratio, abs=6e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 200), st.floats(1e-12, 0.5), st.floats(0.01, 100))
def test_sigma_is_the_smallest_that_keeps_the_promise(epsilon: float, delta: float, sensitivity: float) -> None:
    sigma = gaussian_sigma(epsilon, delta, sensitivity)
    assert gaussian_delta(sigma, epsilon, sensitivity) <= delta * (1 + 1e-9)
    assert gaussian_delta(sigma * 0.999, epsilon, sensitivity) > delta
    assert gaussian_epsilon(sigma, delta, sensitivity) == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 1, 30, 60, 120])
def test_tails_agree_with_arbitrary_precision(epsilon: float) -> None:
    """Flaw 8: cancellation at large epsilon."""
    sigma = gaussian_sigma(epsilon, 1e-5)
    with mpmath.workdps(80):
        half, shift = mpmath.mpf(1) / (2 * sigma), mpmath.mpf(epsilon) * sigma
        exact = mpmath.ncdf(half - shift) - mpmath.exp(epsilon) * mpmath.ncdf(-half - shift)
    assert gaussian_delta(sigma, epsilon) == pytest.approx(float(exact), rel=1e-8)


def test_the_classical_formula_under_noises_at_large_epsilon() -> None:
    """Flaw 7: sqrt(2 ln(1.25/delta))/epsilon is no theorem above epsilon one."""

    def classical(epsilon: float) -> float:
        return math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon

    assert classical(16) == pytest.approx(0.303, abs=1e-3)
    assert gaussian_delta(classical(16), 16) > 1e-5
    assert gaussian_delta(classical(1), 1) < 1e-5


@pytest.mark.parametrize(("nominal", "real"), [(8, 19.1), (1, 2.15), (3, 6.7)])
def test_noise_for_sensitivity_one_is_refuted_exactly(nominal: float, real: float) -> None:
    """Flaw 5: two vectors of norm C differ by up to 2C under replacement."""
    mechanism = GaussianMechanism(nominal, 1e-5, clip=1.0, unit="sequence")
    assert mechanism.sensitivity(1) == 2.0
    assert audit_calibration(mechanism.parameters).holds
    flawed = gaussian_sigma(nominal, 1e-5, sensitivity=1.0)
    assert not audit_calibration(replace(mechanism.parameters, sigma=flawed)).holds
    assert gaussian_epsilon(flawed, 1e-5, sensitivity=2.0) == pytest.approx(real, rel=0.01)


@pytest.mark.parametrize(("sensitivity", "refuted"), [(2.0, False), (1.0, True)])
def test_monte_carlo_refutes_the_wrong_sensitivity_from_samples(sensitivity: float, refuted: bool) -> None:
    sigma = gaussian_sigma(1.0, 1e-5, sensitivity)
    rng = generator(0, "worst pair")
    first, second = (centre + sigma * rng.standard_normal(400_000) for centre in (1.0, -1.0))
    bound = pair_lower_bound(first, second, claimed=1.0, delta=1e-5)
    assert bound.refuted is refuted
    assert bound.epsilon_lower > 0.5


@pytest.mark.parametrize("unit", ["token", "sequence"])
def test_a_release_is_clipped_and_its_noise_has_the_stated_energy(unit: str) -> None:
    """Flaw 9: noise switched off at evaluation."""
    mechanism = GaussianMechanism(8.0, 1e-5, clip=2.0, unit=unit)  # type: ignore[arg-type]
    states = 5 * torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    released = mechanism.release(states, generator(0, "release"))
    noise = (released - mechanism.clipped(states)).numpy()
    assert noise.std() == pytest.approx(mechanism.sigma(50), rel=0.05)
    assert float(mechanism.clipped(states).norm()) == pytest.approx(2.0 * 50**0.5, rel=1e-4)
    assert released.dtype == states.dtype
    again = mechanism.release(states, generator(0, "another"))
    assert not torch.equal(released, again)


def test_clipping() -> None:
    states = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(clip_rows(states, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert float(clip_frobenius(states, 1.0).norm()) == pytest.approx(1.0)
    torch.testing.assert_close(clip_frobenius(states, 100.0), states)
    torch.testing.assert_close(clip_frobenius(torch.zeros(2, 2), 1.0), torch.zeros(2, 2))


def test_composition_is_exact_for_gaussians() -> None:
    """n releases equal one of sensitivity 2C sqrt(n); far below n times epsilon, never below one release."""
    mechanism = GaussianMechanism(1.0, 1e-5, clip=3.0, unit="token")
    assert mechanism.composed_epsilon(1) == pytest.approx(1.0, rel=1e-6)
    assert 4.0 < mechanism.composed_epsilon(16) < 16.0
    text = str(mechanism.guarantee())
    assert "per token" in text
    assert "n=16" in text
    assert mechanism.guarantee().sensitivity == 6.0
    assert GaussianMechanism(1.0, 1e-5, clip=3.0, unit="sequence").sensitivity(4) == 12.0


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="epsilon > 0"):
        GaussianMechanism(0.0, 1e-5, 1.0, "token")
    with pytest.raises(ConfigError, match="0 < delta < 1"):
        gaussian_sigma(1.0, 0.0)
    with pytest.raises(ConfigError, match="clipping norm"):
        GaussianMechanism(1.0, 1e-5, 0.0, "token")
    with pytest.raises(ConfigError, match="unknown unit"):
        GaussianMechanism(1.0, 1e-5, 1.0, "document")  # type: ignore[arg-type]


def test_epsilon_is_zero_where_the_noise_drowns_everything() -> None:
    assert gaussian_epsilon(1e6, 0.1) == 0.0
    assert np.isfinite(gaussian_epsilon(0.05, 1e-5))
