"""Noise on replies has the stated size and promise; rounding keeps the stated bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.attention.reply_noise import ReplyNoise, round_mantissa
from smd_research.mechanisms.privacy.gaussian import gaussian_epsilon
from smd_research.models.partial_attention import NEGATIVE_INFINITY, Partial, merge

HEADS, DIM = 8, 64


def noise(multiplier: float, log_weight: float = 0.0) -> ReplyNoise:
    return ReplyNoise(multiplier, log_weight, torch.tensor([2.0, 3.0]), torch.tensor([5.0, 9.0]))


def shard(size: float = 0.1) -> Partial:
    g = torch.Generator().manual_seed(0)
    return Partial(
        torch.randn(1, HEADS, 1, generator=g),
        1 + torch.rand(1, HEADS, 1, generator=g),
        size * torch.randn(1, HEADS, 1, DIM, generator=g),
    )


def test_noise_on_the_average_has_the_stated_deviation_and_leaves_the_rest() -> None:
    rng, plain = np.random.default_rng(0), shard()
    released = [noise(0.01).release(plain, 1, rng) for _ in range(200)]
    off = torch.stack([r.a - plain.a for r in released])
    assert float(off.std()) == pytest.approx(0.01 * 2 * 3.0 * math.sqrt(HEADS), rel=0.02)
    assert float(off.mean()) == pytest.approx(0.0, abs=0.005)
    assert all(torch.equal(r.m, plain.m) and torch.equal(r.g, plain.g) for r in released)


def test_long_rows_are_clipped_to_the_norm_that_sensitivity_counts_on() -> None:
    released = noise(1e-9).release(shard(size=50.0), 0, np.random.default_rng(0))
    assert float(released.a.norm(dim=-1).max()) <= 2.0 + 1e-4


def test_noise_on_the_weight_hides_maximum_and_sum_behind_one_number() -> None:
    plain = shard()
    released = noise(0.0, 0.5).release(plain, 0, np.random.default_rng(0))
    assert torch.equal(released.g, torch.ones_like(plain.g))
    assert torch.equal(released.a, plain.a)
    off = released.m - (plain.m + plain.g.log())
    assert 0.1 < float(off.abs().mean()) < 1.5


@pytest.mark.parametrize(("layer", "bound"), [(0, 5.0), (1, 9.0)])
@pytest.mark.parametrize("size", [-40.0, 40.0])
def test_the_weight_is_clipped_to_its_layers_bound_before_the_noise(layer: int, bound: float, size: float) -> None:
    plain = shard()._replace(m=torch.full((1, HEADS, 1), size))
    quiet = noise(0.0, 1e-6).release(plain, layer, np.random.default_rng(0))
    assert torch.allclose(quiet.m, torch.full_like(plain.m, math.copysign(bound, size)), atol=1e-4)
    loud = noise(0.0, 30.0).release(plain, layer, np.random.default_rng(0))
    assert float(loud.m.abs().max()) > bound, "what is clipped is the weight, not what is released"


@settings(deadline=None, max_examples=50)
@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(0.01, 50), st.integers(0, 1))
def test_no_two_weights_are_further_apart_than_the_promise_counts_on(
    one: float, other: float, g: float, layer: int
) -> None:
    """Under one draw of the noise the releases of two prompts differ by 2 B a head at most."""
    replies = [
        noise(0.0, 3.0).release(
            Partial(torch.full((1, HEADS, 1), m), torch.full((1, HEADS, 1), g), torch.zeros(1, HEADS, 1, DIM)),
            layer,
            np.random.default_rng(5),
        )
        for m in (one, other)
    ]
    assert float((replies[0].m - replies[1].m).abs().max()) <= 2 * (5.0, 9.0)[layer] + 1e-4


def test_the_noise_on_the_weight_has_the_stated_deviation() -> None:
    rng, plain = np.random.default_rng(0), shard()
    weight = plain.m + plain.g.log()
    off = torch.stack([noise(0.0, 0.5).release(plain, 1, rng).m - weight for _ in range(500)])
    assert float(off.std()) == pytest.approx(0.5, rel=0.05)
    assert float(off.mean()) == pytest.approx(0.0, abs=0.03)


def test_an_empty_reply_stays_empty() -> None:
    nothing = Partial(torch.full((1, 2, 1), NEGATIVE_INFINITY), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1, 4))
    released = noise(0.0, 1.0).release(nothing, 0, np.random.default_rng(0))
    other = Partial(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), torch.ones(1, 2, 1, 4))
    assert torch.equal(merge([released, other]), other.a)


def test_there_is_no_promise_while_anything_is_exact() -> None:
    assert noise(1.0).guarantee(HEADS, 1e-5) is None
    assert noise(0.0, 1.0).guarantee(HEADS, 1e-5) is None


def test_the_promise_is_that_of_both_gaussians_together() -> None:
    promise = noise(2.0, 30.0).guarantee(HEADS, 1e-5)
    assert promise is not None
    mu = math.hypot(1 / 2.0, 2 * 9.0 * math.sqrt(HEADS) / 30.0)
    assert promise.epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-5, mu))
    for replies in (1, 32, 160):
        assert f"r={replies}: {gaussian_epsilon(1.0, 1e-5, mu * math.sqrt(replies)):.4g}" in promise.composition
    stronger = noise(4.0, 60.0).guarantee(HEADS, 1e-5)
    assert stronger is not None
    assert stronger.epsilon < promise.epsilon


@pytest.mark.parametrize(("multiplier", "log_weight"), [(-1.0, 0.0), (0.0, -1.0), (math.inf, 0.0)])
def test_impossible_noise_is_refused(multiplier: float, log_weight: float) -> None:
    with pytest.raises(ConfigError, match="noise"):
        noise(multiplier, log_weight)


@given(value=st.floats(-1e6, 1e6, width=32), bits=st.integers(1, 23))
def test_rounding_is_to_the_nearest_with_that_many_bits(value: float, bits: int) -> None:
    x = torch.tensor([value])
    rounded = round_mantissa(x, bits)
    assert abs(float(rounded - x)) <= abs(value) * 2.0 ** -(bits + 1) * (1 + 1e-6) + 1e-38
    assert torch.equal(round_mantissa(rounded, bits), rounded)


def test_rounding_to_a_format_is_that_format() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_mantissa(x, 7), x.bfloat16().float())
    assert torch.equal(round_mantissa(x, 23), x)
    assert round_mantissa(torch.tensor([NEGATIVE_INFINITY]), 3).tolist() == [NEGATIVE_INFINITY]


@pytest.mark.parametrize("bits", [0, 24])
def test_impossible_bits_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match="reply_bits"):
        round_mantissa(torch.ones(1), bits)
