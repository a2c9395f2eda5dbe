"""Rounding is to the nearest, by row, and never clips."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ConfigError, LabError
from smd_research.mechanisms.integers.fixed_point import BITS, FixedPointOverflowError, encode, quantise_rows


@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from(BITS), magnitude=st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
@settings(deadline=None, max_examples=60)
def test_a_quantised_weight_is_within_half_a_step(seed: int, bits: int, magnitude: float) -> None:
    weight = torch.randn(5, 9, generator=torch.Generator().manual_seed(seed)) * magnitude
    weight[1] *= 1e3
    quantised = quantise_rows(weight, bits)
    steps = 2 ** (bits - 1) - 1
    assert quantised.integers.dtype == (torch.int16 if bits == 16 else torch.int8)
    assert quantised.integers.long().abs().amax(1).tolist() == [steps] * 5
    error = (quantised.dequantised().double() - weight.double()).abs()
    step = quantised.scale.double()[:, None]
    # half a step, and what float32 rounds of the scale and of the result
    assert (error <= step * (0.5 + 2 * steps * 2.0**-24)).all()


def test_rows_have_their_own_scale_and_a_row_of_zeros_stays_zero() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.0, 0.0], [1000.0, 600.0], [1e-44, 0.0]])
    quantised = quantise_rows(weight, 8)
    assert quantised.integers.tolist()[:3] == [[64, -127], [0, 0], [127, 76]]
    assert (quantised.scale > 0).all()
    assert quantised.dequantised()[1].tolist() == [0.0, 0.0]
    assert torch.isfinite(quantised.dequantised()).all()


@pytest.mark.parametrize(("weight", "bits"), [(torch.ones(1, 1), 12), (torch.tensor([[float("nan")]]), 16)])
def test_what_cannot_be_quantised_is_refused(weight: torch.Tensor, bits: int) -> None:
    with pytest.raises(ConfigError):
        quantise_rows(weight, bits)


@given(seed=st.integers(0, 2**32 - 1), fraction_bits=st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_an_encoded_activation_is_within_half_a_step(seed: int, fraction_bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Cauchy: tails as heavy as those of outlier channels
    a = torch.randn(3, 17, generator=generator) / torch.randn(3, 17, generator=generator).abs().clamp(min=1e-6)
    x = encode(a, fraction_bits, 2**50)
    assert x.dtype == torch.int64
    assert ((x.double() * 2.0**-fraction_bits - a.double()).abs() <= 2.0 ** -(fraction_bits + 1)).all()


def test_the_bound_itself_passes_and_more_is_an_error_not_a_clip() -> None:
    assert encode(torch.tensor([[2.0, -2.0]]), 10, 2048).tolist() == [[2048, -2048]]
    with pytest.raises(FixedPointOverflowError, match=r"an activation of 2\.001 exceeds .* bound of 2:"):
        encode(torch.tensor([[0.0, -2.001]]), 10, 2048)
    assert issubclass(FixedPointOverflowError, LabError)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(FixedPointOverflowError):
        encode(torch.tensor([[0.0, value]]), 10, 2**50)
