"""Rounding is to the nearest, by row, within a bound that no input exceeds, and never clips."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.core.errors import ConfigError, LabError
from smd_research.mechanisms.integers.field import FIELDS, WIDE, Field
from smd_research.mechanisms.integers.fixed_point import BITS, FixedPoint, FixedPointOverflowError, quantise_rows


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


MAGNITUDES = [1e-42, 1e-20, 1e-3, 1.0, 3375.0, 1e30]
FIELD = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)


def _drawn(field: Field, seed: int, rows: int = 6, m: int = 5, n: int = 17) -> tuple[FixedPoint, Tensor, Tensor]:
    """The fixed point of a random matrix, its integers, and rows with tails as heavy as those of outlier channels."""
    generator = torch.Generator().manual_seed(seed)
    weights = quantise_rows(torch.randn(m, n, generator=generator), field.weight_bits + 1)
    a = torch.randn(rows, n, generator=generator) / torch.randn(rows, n, generator=generator).abs().clamp(min=1e-6)
    return FixedPoint.of(weights.integers, weights.scale, field), weights.integers, a


@given(name=st.sampled_from(sorted(FIELDS)), seed=st.integers(0, 2**32 - 1), magnitude=st.sampled_from(MAGNITUDES))
@settings(deadline=None, max_examples=60)
def test_an_encoded_activation_is_within_half_a_step_and_its_row_within_the_bound(
    name: str, seed: int, magnitude: float
) -> None:
    point, _, a = _drawn(FIELDS[name], seed)
    a = a / a.abs().max() * magnitude
    x, step = point.encode(a)
    assert x.dtype == torch.int64
    assert step.shape == (len(a), 1)
    assert ((x.double() * step - a.double()).abs() <= step / 2).all()
    assert (torch.frexp(step).mantissa == 0.5).all(), "a power of two, so that nothing else is rounded"
    assert all(sum(v * v for v in row) <= point.limit for row in x.tolist())
    # twice as fine a step would not fit; a row so small that fp32 holds only zeros fits any
    lengths = a.double().norm(dim=1)
    assert ((lengths > point.room * step[:, 0] / 2) | (lengths == 0)).all()


@FIELD
@pytest.mark.parametrize("n", [5, 576, 11008])
def test_no_output_leaves_the_field_in_the_worst_case(field: Field, n: int) -> None:
    """Rows along the weights' own, where the inequality is an equality, of any length: exactly, by whole numbers."""
    largest = 2**field.weight_bits - 1
    integers = torch.full((3, n), largest)
    integers[1].neg_()
    integers[2] = torch.randint(-largest, largest + 1, (n,), generator=torch.Generator().manual_seed(n))
    point = FixedPoint.of(integers, torch.ones(3), field)
    # the first is as long as a step of one allows
    lengths = torch.tensor([0.999999, 1.000001, 0.3, 1e-30, 1e30]) * point.room
    closest = 0
    for along in integers.double():
        x, _ = point.encode(lengths[:, None] * (along / along.norm()))
        y = x.numpy().astype(object) @ integers.numpy().astype(object).T
        assert abs(y).max() <= field.prime // 2
        closest = max(closest, abs(y).max())
    assert closest > 0.9 * (field.prime // 2), "the bound is not looser than it has to be"


@FIELD
@pytest.mark.parametrize("largest", [0, 1, 7])
def test_few_small_weights_whose_bound_is_beyond_64_bits_are_served(field: Field, largest: int) -> None:
    integers = torch.tensor([[largest, -largest, 0], [0, 0, largest]], dtype=torch.int8)
    point = FixedPoint.of(integers, torch.ones(2), field)
    x, step = point.encode(torch.tensor([[1.0, -3.0, 0.5], [2.0**-20, 0.0, 2.0**40]]))
    assert all(sum(v * v for v in row) <= point.limit for row in x.tolist())
    y = x.numpy().astype(object) @ integers.numpy().astype(object).T
    assert abs(y).max() <= field.prime // 2
    assert (step * x.double())[0].tolist() == [1.0, -3.0, 0.5]


def test_an_outlier_costs_no_bits_but_those_of_its_own_row() -> None:
    point, _, a = _drawn(WIDE, 1)
    alone = point.encode(a).step
    loud = a.clone()
    loud[2, 3] = 1e6
    assert torch.equal(point.encode(loud).step[[0, 1, 3, 4, 5]], alone[[0, 1, 3, 4, 5]])
    assert point.encode(loud).step[2] > alone[2]


def test_decoding_gives_what_the_integers_stand_for() -> None:
    point, integers, a = _drawn(WIDE, 2)
    x, step = point.encode(a)
    y = point.decode((x @ integers.long().T).double(), step)
    exact = (x.double() * step) @ (integers.double() * point.scale.double()[:, None]).T
    assert y.dtype == torch.float32
    assert torch.allclose(y.double(), exact, rtol=1e-7, atol=0)


def test_a_row_of_zeros_is_served() -> None:
    point, _, a = _drawn(WIDE, 3)
    x, step = point.encode(a * torch.tensor([1.0, 0, 1, 1, 1, 1])[:, None])
    assert not x[1].any()
    assert torch.isfinite(step).all()
    assert (point.decode(torch.zeros(6, 5, dtype=torch.float64), step) == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_an_error(value: float) -> None:
    point, _, a = _drawn(WIDE, 4)
    a[5, 0] = value
    with pytest.raises(FixedPointOverflowError, match="not finite"):
        point.encode(a)
    assert issubclass(FixedPointOverflowError, LabError)


def test_the_bound_is_asserted_not_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a step of half the size, which no input can make happen."""
    point, _, a = _drawn(WIDE, 5)
    monkeypatch.setitem(point.__dict__, "room", 2 * point.room)
    with pytest.raises(FixedPointOverflowError, match="longer than the bound"):
        point.encode(a)
