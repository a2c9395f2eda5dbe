"""What a client sends of its states: exact where nothing was learned, densities of the noise that is drawn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smd_research.core.errors import NotApplicableError
from smd_research.mechanisms.privacy.gaussian import CALIBRATIONS, Calibration, GaussianMechanism
from smd_research.mechanisms.privacy.noise import SAMPLERS, Sampler
from smd_research.mechanisms.privacy.radial import RadialMechanism
from smd_research.mechanisms.releases import (
    AdaptedRelease,
    BottleneckRelease,
    ClusteredRelease,
    GaussianRelease,
    Moments,
    PlainRelease,
    Release,
    ReleaseParameters,
    SimulatedClient,
    SparseRelease,
    release_of,
)
from smd_research.mechanisms.split_inference import SplitParameters
from smd_research.models import sources
from smd_research.models.attention import LocalAttention
from smd_research.models.hooked import HookedModel

WIDTH = 6


def states(rows: int = 400, seed: int = 0) -> torch.Tensor:
    scales = torch.arange(1, WIDTH + 1).float()
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)) * scales + 2


MOMENTS = Moments.of(states())


def test_moments_are_those_of_the_states_and_never_zero() -> None:
    torch.testing.assert_close(MOMENTS.scale, states().std(0, correction=0))
    assert MOMENTS.unit == pytest.approx(float(states().std(0, correction=0).square().mean().sqrt()))
    assert bool((Moments.of(torch.ones(5, 3)).scale > 0).all())


@pytest.mark.parametrize(
    "release",
    [
        PlainRelease(),
        AdaptedRelease(MOMENTS),
        BottleneckRelease(MOMENTS),
        ClusteredRelease(1.0, states(3), MOMENTS),
        SparseRelease(1.0, MOMENTS),
    ],
)
def test_before_training_states_are_left_as_they_are(release: Release) -> None:
    assert torch.equal(release.centre(states()), states())


@given(st.floats(0.01, 1), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_the_largest_coordinates_are_kept_as_they_are(share: float, seed: int) -> None:
    rows = states(20, seed)
    sent = SparseRelease(share).centre(rows)
    kept = max(1, round(share * WIDTH))
    assert ((sent != 0).sum(-1) == kept).all()
    assert torch.equal(sent[sent != 0], rows[sent != 0])
    left_out = rows.abs().masked_fill(sent != 0, 0).amax(-1)
    assert (left_out <= sent.abs().masked_fill(sent == 0, math.inf).amin(-1)).all()


def test_densities_are_those_of_the_noise() -> None:
    rows = states(2)
    cluster = ClusteredRelease(0.5, states(3), MOMENTS)
    scale = 0.5 * MOMENTS.unit
    expected = [stats.laplace.logpdf(rows[0], rows[i], scale).sum() for i in (0, 1)]
    found = cluster.log_density(rows, rows[0]).detach()
    assert float(found[0] - found[1]) == pytest.approx(float(expected[0] - expected[1]), rel=1e-4)
    code = BottleneckRelease(MOMENTS)
    with torch.no_grad():
        code.spread.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    ratio = code._log_ratio(rows).exp().detach() * MOMENTS.scale
    expected = [stats.norm.logpdf(rows[0], rows[i], ratio[i]).sum() for i in (0, 1)]
    found = code.log_density(rows, rows[0]).detach()
    assert float(found[0] - found[1]) == pytest.approx(float(expected[0] - expected[1]), rel=1e-4)


@pytest.mark.parametrize(
    ("release", "deviation"),
    [
        (ClusteredRelease(0.5, states(3), MOMENTS), 0.5 * MOMENTS.unit * 2**0.5),
        (BottleneckRelease(MOMENTS), 0.1 * MOMENTS.scale),
    ],
)
def test_noise_is_fresh_and_of_its_scale(release: Release, deviation: float | torch.Tensor) -> None:
    rng, rows = np.random.default_rng(0), torch.zeros(4000, WIDTH)
    with torch.no_grad():
        one, two = release.release(rows, rng), release.release(rows, rng)
    assert not torch.equal(one, two)
    torch.testing.assert_close(one.std(0), torch.as_tensor(deviation).expand(WIDTH), rtol=0.1, atol=0)


def test_a_code_that_is_the_prior_says_nothing() -> None:
    code = BottleneckRelease(MOMENTS)
    torch.nn.init.zeros_(code.spread.bias)
    assert float(code.divergence(MOMENTS.mean[None]).detach()) == pytest.approx(0, abs=1e-5)
    assert float(code.divergence(states(1)).detach()) > 0


@pytest.mark.parametrize("unit", ["token", "sequence"])
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_gaussian_noise_is_that_of_the_mechanism(unit: str, calibration: Calibration) -> None:
    mechanism = GaussianMechanism(4.0, 1e-5, 3.0, unit, calibration)  # type: ignore[arg-type]
    release = release_of((SplitParameters(0), mechanism.parameters))
    assert isinstance(release, GaussianRelease)
    rows = states(12)
    expected = mechanism.release(rows, np.random.default_rng(3))
    torch.testing.assert_close(release.release(rows, np.random.default_rng(3)), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(release.centre(rows), mechanism.clipped(rows))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", [None, 2.0])
def test_radial_noise_is_that_of_the_mechanism(sampler: Sampler, clip: float | None) -> None:
    mechanism = RadialMechanism(4.0, WIDTH, sampler=sampler, clip=clip)
    release, rows = release_of((SplitParameters(0), mechanism.parameters)), states(12)
    assert release.noisy
    expected = mechanism.release(rows, np.random.default_rng(3))
    torch.testing.assert_close(release.release(rows, np.random.default_rng(3)), expected)
    assert clip is None or float(release.centre(rows).norm(dim=-1).max()) <= clip * (1 + 1e-6)


def test_a_row_that_was_clipped_with_its_message_has_no_density_of_its_own() -> None:
    release = release_of((GaussianMechanism(4.0, 1e-5, 3.0, "sequence").parameters,))
    with pytest.raises(NotApplicableError, match="GaussianRelease"):
        release.log_density(states(1), states(1)[0])


def test_a_release_is_found_among_what_is_published() -> None:
    release = SparseRelease(0.5)
    assert release_of((SplitParameters(0), ReleaseParameters(release))) is release
    assert isinstance(release_of((SplitParameters(0),)), PlainRelease)
    with pytest.raises(NotApplicableError, match="SparseRelease"):
        release.log_density(states(1), states(1)[0])


def test_a_simulated_client_sends_what_a_client_does() -> None:
    bundle = sources.random("llama")
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    true = HookedModel(bundle, None, 1).forward(LocalAttention(), torch.arange(4), ids=ids)
    client = SimulatedClient(bundle, SplitParameters(1, "fp16"), SparseRelease(0.5))
    sent = client.sent(ids, np.random.default_rng(0))
    torch.testing.assert_close(sent, torch.stack([SparseRelease(0.5).centre(one) for one in true]).half().float())
