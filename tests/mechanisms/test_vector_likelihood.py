"""The likelihood of a noisy row is that of the mechanism that made it: its best guess beats every other's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.gaussian import GaussianMechanism
from smd_research.mechanisms.privacy.noise import SAMPLERS, Sampler, released_log_density
from smd_research.mechanisms.privacy.radial import RadialMechanism
from smd_research.mechanisms.privacy.vector_likelihood import RadialLikelihood
from smd_research.mechanisms.releases import release_of

ROWS, WIDTH, DRAWS = 30, 12, 200


@pytest.fixture(scope="module")
def table() -> Tensor:
    return torch.from_numpy(generator(0, "table").standard_normal((ROWS, WIDTH))).float()


def hits(mechanism: RadialMechanism | GaussianMechanism, table: Tensor) -> tuple[float, float]:
    """How often the likelihood and the nearest row find the right one."""
    rng = generator(1, "draws")
    truth = torch.from_numpy(rng.integers(ROWS, size=DRAWS))
    seen = torch.cat([mechanism.release(table[one][None], rng) for one in truth])
    likelihood = release_of((mechanism.parameters,)).log_density
    best = torch.stack([likelihood(table, one).argmax() for one in seen])
    nearest = torch.cdist(seen, table).argmin(1)
    return float((best == truth).float().mean()), float((nearest == truth).float().mean())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_likelihood_reads_through_little_noise_and_not_through_much(
    table: Tensor, sampler: Sampler, clip: float | None
) -> None:
    little, _ = hits(RadialMechanism(60.0, WIDTH, sampler=sampler, clip=clip), table)
    much, _ = hits(RadialMechanism(0.05, WIDTH, sampler=sampler, clip=clip), table)
    assert little > 0.97
    assert much < 0.15


@pytest.mark.parametrize(
    "mechanism",
    [
        RadialMechanism(5.0, WIDTH, clip=1.0),
        RadialMechanism(12.0, WIDTH, sampler="released", clip=1.0),
        RadialMechanism(12.0, WIDTH, sampler="released"),
        GaussianMechanism(20.0, 1e-5, 2.0, "token"),
    ],
)
def test_the_likelihood_is_at_least_as_good_as_the_nearest_row(
    mechanism: RadialMechanism | GaussianMechanism, table: Tensor
) -> None:
    ours, nearest = hits(mechanism, table)
    assert ours >= nearest - 0.02
    assert 0.2 < ours < 0.99  # where there is something to decide


def test_a_clipped_rows_likelihood_is_that_of_its_direction(table: Tensor) -> None:
    """Summed over the lengths by brute force: noise that ends in a narrow cone around the direction."""
    mechanism = RadialMechanism(2.0, 3, clip=0.5)
    rows = torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.6, 0.0]])
    observed = torch.tensor([0.5, 0.0, 0.0])
    found = release_of((mechanism.parameters,)).log_density(rows, observed)
    noise, shares = mechanism.noise(400_000, generator(3, "cone")), []
    for row in rows:
        ended = noise + row
        length = ended.norm(dim=-1)
        shares.append(float(((ended[:, 0] / length > 0.9) & (length > 0.5)).double().mean()))
    # the cone is wide enough to have samples, so the ratio is compared with the likelihood's mean over it
    aimed = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    aimed = aimed[aimed[:, 0] > 0.9] * 0.5
    over = torch.stack([release_of((mechanism.parameters,)).log_density(rows, one) for one in aimed]).exp().mean(0)
    assert float(over[0] / over[1]) == pytest.approx(shares[0] / shares[1], rel=0.1)
    assert float(found[0]) > float(found[1])


def test_the_released_density_is_looked_up_closely(table: Tensor) -> None:
    mechanism = RadialMechanism(4.0, WIDTH, sampler="released")
    observed = table[0] + 2.0
    found = RadialLikelihood(mechanism.parameters)(table.double(), observed.double())
    exact = released_log_density((table - observed).double().numpy(), 4.0)
    np.testing.assert_allclose(found - found[0], exact - exact[0], atol=1e-4)
