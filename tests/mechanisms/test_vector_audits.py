"""What mechanisms on vectors claim is what they give; released variants are shown to miss it, with the number."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.gaussian import (
    CALIBRATIONS,
    GaussianMechanism,
    Unit,
    gaussian_delta,
    gaussian_sigma,
)
from smd_research.mechanisms.privacy.noise import log_upper_gamma, released_log_density, released_noise
from smd_research.mechanisms.privacy.radial import RadialMechanism
from smd_research.mechanisms.privacy.vector_audits import (
    audit_calibration,
    audit_clipped_laplace,
    audit_radial,
    audit_release,
)


@pytest.mark.parametrize(("epsilon", "really"), [(1.0, 2.15), (3.0, 6.71), (8.0, 19.12)])
def test_noise_for_sensitivity_one_misses_what_it_claims(epsilon: float, really: float) -> None:
    """Flaw 5: at C=1 two clipped vectors lie 2 apart."""
    right, released = (
        audit_calibration(GaussianMechanism(epsilon, 1e-5, 1.0, "token", how).parameters) for how in CALIBRATIONS
    )
    assert right.holds
    assert right.measured == pytest.approx(epsilon)
    assert not released.holds
    assert released.measured == pytest.approx(really, abs=0.01)


@given(epsilon=st.floats(0.1, 50), clip=st.floats(0.05, 20), rows=st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_corrected_noise_has_its_delta_exactly_at_2c(epsilon: float, clip: float, rows: int) -> None:
    mechanism = GaussianMechanism(epsilon, 1e-5, clip, "sequence")
    exact = gaussian_delta(mechanism.sigma(rows), epsilon, 2 * clip * math.sqrt(rows))
    assert exact == pytest.approx(1e-5, rel=1e-6)
    assert audit_calibration(mechanism.parameters, rows).holds
    released = GaussianMechanism(epsilon, 1e-5, clip, "sequence", "released")
    assert audit_calibration(released.parameters, rows).holds == (clip * math.sqrt(rows) <= 0.5)


def test_noise_that_does_not_grow_with_a_message_protects_longer_ones_less() -> None:
    released = GaussianMechanism(1.0, 1e-5, 1.0, "sequence", "released")
    one, many = (audit_calibration(released.parameters, rows).measured for rows in (1, 16))
    assert many > 2 * one
    promised = released.guarantee()
    assert promised.epsilon == pytest.approx(one)
    assert f"of 16 rows {many:.4g}" in promised.composition
    assert promised.unit_epsilon is None


def test_what_is_audited_is_the_noise_that_is_published() -> None:
    known = GaussianMechanism(1.0, 1e-5, 1.0, "token").parameters
    assert not audit_calibration(replace(known, sigma=known.sigma * 0.9)).holds


@pytest.mark.parametrize(("unit", "rows"), [("token", 1), ("sequence", 6)])
def test_a_release_is_played_with_its_clip_and_its_noise(
    unit: Unit, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published deviation alone is the same whether the clip is left out, or half of the noise."""
    known = GaussianMechanism(2.0, 1e-5, 3.0, unit).parameters
    kept = audit_release(known, generator(0, "sent"), rows, 4000)
    assert kept.verdict == "not refuted"
    assert 1.3 < kept.measured <= 2.0
    norm, clipped = GaussianMechanism.sigma, GaussianMechanism.clipped
    for name, broken in (
        ("sigma", lambda self, rows: norm(self, rows) / 2),
        ("clipped", lambda self, states: states),
        ("clipped", lambda self, states: 1.5 * clipped(self, states)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(GaussianMechanism, name, broken)
            assert audit_calibration(known, rows).holds
            assert audit_release(known, generator(0, "sent"), rows, 4000).verdict.startswith("refuted by ")


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0, 16.0])
def test_the_classical_formula_is_no_substitute(epsilon: float) -> None:
    """Flaw 7: above epsilon one it is no theorem, and from about 8.4 on it is too small."""
    classical = math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon
    assert (classical < gaussian_sigma(epsilon, 1e-5)) == (epsilon > 8.4)
    assert (gaussian_delta(classical, epsilon) > 1e-5) == (epsilon > 8.4)


def test_tails_do_not_cancel_at_large_epsilon() -> None:
    """Flaw 8."""
    for epsilon in (30.0, 300.0, 3000.0):
        assert gaussian_delta(gaussian_sigma(epsilon, 1e-12), epsilon) == pytest.approx(1e-12, rel=1e-6)


def test_radial_noise_has_the_law_that_is_claimed() -> None:
    mechanism = RadialMechanism(7.0, 32)
    found = audit_radial(mechanism, generator(0, "audit"), 3000)
    assert found.holds
    assert found.measured == pytest.approx(7.0, rel=0.02)
    assert found.measured < 7.0, "a lower bound"
    assert found.n == 3000


def test_noise_that_is_scaled_for_another_epsilon_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RadialMechanism.noise
    monkeypatch.setattr(RadialMechanism, "noise", lambda self, rows, rng: right(self, rows, rng) / 1.5)
    found = audit_radial(RadialMechanism(7.0, 32), generator(0, "audit"), 3000)
    assert not found.holds
    assert found.measured == pytest.approx(10.5, rel=0.02)


@pytest.mark.parametrize("width", [16, 64, 768])
def test_a_radius_for_each_coordinate_gives_the_root_of_the_dimension_times_the_claim(width: int) -> None:
    """Flaw 4: exact, and what its guarantee then states is not exceeded."""
    mechanism = RadialMechanism(100.0, width, sampler="released")
    found = audit_radial(mechanism, generator(0, "audit"))
    assert not found.holds
    assert found.measured == pytest.approx(100.0 * math.sqrt(width), rel=1e-3)
    assert found.measured <= mechanism.guarantee().epsilon


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_the_released_density_never_falls_faster_than_its_guarantee(seed: int, scale: float) -> None:
    mechanism, rng = RadialMechanism(3.0, 12, sampler="released"), np.random.default_rng(seed)
    here, step = scale * rng.standard_normal(12), rng.standard_normal(12)
    fall = float(released_log_density(here, 3.0) - released_log_density(here + step, 3.0))
    assert abs(fall) <= 3.0 * np.abs(step).sum() + 1e-9
    assert abs(fall) <= mechanism.guarantee().epsilon * np.linalg.norm(step) + 1e-9


def test_the_released_density_is_that_of_its_samples() -> None:
    width, epsilon = 6, 2.0
    drawn = np.abs(released_noise(40_000, width, epsilon, generator(0, "released"))[:, 0])
    edges = np.linspace(0, 6, 13)
    fine = np.linspace(0, 6, 1201)
    density = np.exp(log_upper_gamma(width - 1, epsilon * fine)) * epsilon / (width - 1)
    share = np.add.reduceat((density[1:] + density[:-1]) / 2 * np.diff(fine), np.arange(0, 1200, 100))
    counted = np.histogram(drawn, edges)[0] / len(drawn)
    np.testing.assert_allclose(counted, share, atol=0.01)


@pytest.mark.parametrize("width", [1, 4, 64])
def test_laplace_noise_on_an_l2_ball_is_off_by_the_root_of_the_dimension(width: int) -> None:
    """Flaw 6."""
    found = audit_clipped_laplace(1.0, 3.0, width)
    assert found.measured == pytest.approx(math.sqrt(width))
    assert found.holds == (width == 1)


def test_a_radial_mechanism_clips_after_the_noise() -> None:
    rows = torch.ones(50, 8)
    loud = RadialMechanism(1.0, 8, clip=0.5).release(rows, generator(0, "r"))
    assert float(loud.norm(dim=-1).max()) <= 0.5 * (1 + 1e-6)
    plain = RadialMechanism(1.0, 8).release(rows, generator(0, "r"))
    torch.testing.assert_close(loud, torch.nn.functional.normalize(plain, dim=-1) * 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RadialMechanism(0.0, 8), "epsilon=.*positive and finite"),
        (lambda: RadialMechanism(math.nan, 8), "epsilon=.*positive and finite"),
        (lambda: RadialMechanism(1.0, 8, clip=0.0), "positive and finite"),
        (lambda: RadialMechanism(1.0, 8, sampler="other"), "unknown sampler"),
        (lambda: GaussianMechanism(1.0, 1e-5, 1.0, "token", "half"), "unknown calibration"),  # type: ignore[arg-type]
    ],
)
def test_what_gives_no_guarantee_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()
