"""Products modulo a prime are those of Python's integers, whatever the inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.integers.field import BLOCK, FIELDS, NARROW, WIDE, Field

FIELD = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)


def is_prime(number: int) -> bool:
    """Miller-Rabin with the bases that decide every number below 3.3e24."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def exact(x: Tensor, weights: Tensor, prime: int) -> Tensor:
    """The product by Python's integers."""
    product = x.numpy().astype(object) @ weights.long().numpy().astype(object).T
    return torch.from_numpy(np.asarray(product % prime, dtype=np.int64))


def draw(field: Field, rows: int, m: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    bound = 2**field.weight_bits
    x = torch.randint(0, field.prime, (rows, n), generator=generator)
    return x, torch.randint(1 - bound, bound, (m, n), generator=generator)


@FIELD
def test_the_modulus_is_a_prime_that_fills_its_limbs(field: Field) -> None:
    assert is_prime(field.prime)
    assert 2 ** (field.limb_bits * field.limbs) > field.prime
    assert not is_prime(2**41 - 1)


@given(
    name=st.sampled_from(sorted(FIELDS)), rows=st.integers(1, 5), m=st.integers(1, 6), n=st.integers(1, 200), seed=...
)
@settings(deadline=None, max_examples=80)
def test_products_are_exact(name: str, rows: int, m: int, n: int, seed: int) -> None:
    field = FIELDS[name]
    x, weights = draw(field, rows, m, n, seed % 2**32)
    y = field.product(x, field.admit(weights))
    assert torch.equal(y, exact(x, weights, field.prime))
    assert y.min() >= 0
    assert y.max() < field.prime


@FIELD
@pytest.mark.parametrize("n", [768, 4096, 11008])
@pytest.mark.parametrize("rows", [1, 3])
def test_products_of_real_widths_are_exact_in_the_worst_case(field: Field, n: int, rows: int) -> None:
    largest = 2**field.weight_bits - 1
    x, weights = draw(field, rows + 4, 5, n, seed=n)
    # the residues with the largest limbs, and weights that all pull one way
    half = field.prime // 2
    for row, value in enumerate((field.prime - 1, 2**field.limb_bits - 1 if field.limbs > 1 else half, half, half + 1)):
        x[row] = value % field.prime
    weights[0], weights[1] = largest, -largest
    for part in x.split(rows):
        assert torch.equal(field.product(part, field.admit(weights)), exact(part, weights, field.prime))


@FIELD
@pytest.mark.parametrize("rows", [1, 3])
def test_small_integers_are_multiplied_as_they_are_block_by_block(field: Field, rows: int) -> None:
    x, weights = draw(field, rows, 300, 768, seed=5)
    small = weights.to(torch.int16 if field.weight_bits > 7 else torch.int8)
    assert small.numel() > BLOCK
    assert field.admit(small) is small
    assert torch.equal(field.product(x, small), exact(x, weights, field.prime))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@FIELD
@pytest.mark.parametrize("rows", [1, 64])
def test_an_accelerator_computes_the_very_same_residues(field: Field, rows: int) -> None:
    x, weights = draw(field, rows, 512, 11008, seed=4)
    there = field.product(x.cuda(), field.admit(weights.cuda())).cpu()
    assert torch.equal(there, field.product(x, field.admit(weights)))


@FIELD
def test_the_longest_product_is_exact_and_a_longer_one_is_refused(field: Field) -> None:
    n = field.longest
    largest = 2**field.weight_bits - 1
    x = torch.full((1, n), field.prime - 1)
    # the high limb alone, the low limb alone, and both full
    x[0, ::3], x[0, 1::3] = 2**field.limb_bits - 1 if field.limbs > 1 else field.prime // 2, field.prime // 2
    weights = torch.full((2, n), largest)
    weights[1].neg_()
    assert torch.equal(field.product(x, weights.double()), exact(x, weights, field.prime))
    longer = torch.zeros(1, n + 1)
    with pytest.raises(ConfigError, match=f"at most {n}"):
        field.product(longer.long(), longer.double())
    with pytest.raises(ConfigError, match="not exact"):
        field.admit(longer)


@FIELD
def test_heavy_tailed_activations_come_back_exactly_from_under_a_mask(field: Field) -> None:
    generator = np.random.default_rng(3)
    n, m = 11008, 7
    bound = field.prime // (2 * n * 2**field.weight_bits)
    tails = np.clip(np.rint(generator.standard_cauchy((3, n)) * max(bound // 64, 1)), -bound, bound)
    x = torch.from_numpy(tails.astype(np.int64))
    x[0, 0], x[0, 1] = bound, -bound
    _, weights = draw(field, 1, m, n, seed=3)
    mask = torch.from_numpy(generator.integers(0, field.prime, (3, n)))
    admitted = field.admit(weights)
    masked = field.product(field.add(x, mask), admitted)
    y = field.lift(field.sub(masked, field.product(mask, admitted)))
    assert torch.equal(y, torch.from_numpy(np.asarray(x.numpy().astype(object) @ weights.numpy().T, dtype=np.int64)))


@given(name=st.sampled_from(sorted(FIELDS)), a=st.integers(-(2**61), 2**61), b=st.integers(-(2**61), 2**61))
@settings(deadline=None)
def test_addition_and_lifting_are_those_of_residues(name: str, a: int, b: int) -> None:
    field = FIELDS[name]
    p = field.prime
    x, y = torch.tensor([a]), torch.tensor([b])
    assert field.reduce(x).item() == a % p
    assert field.add(x, y).item() == (a + b) % p
    assert field.sub(x, y).item() == (a - b) % p
    lifted = int(field.lift(x))
    assert (lifted - a) % p == 0
    assert abs(lifted) <= p // 2


def test_lifting_leaves_its_input_alone() -> None:
    x = torch.tensor([WIDE.prime - 1])
    assert WIDE.lift(x).tolist() == [-1]
    assert x.tolist() == [WIDE.prime - 1]


@pytest.mark.parametrize(
    ("field", "weights"),
    [
        (WIDE, torch.tensor([[-(2**15)]], dtype=torch.int16)),
        (NARROW, torch.tensor([[-(2**7)]], dtype=torch.int8)),
        (NARROW, torch.tensor([[0, 200]], dtype=torch.int16)),
    ],
)
def test_weights_beyond_the_bound_are_refused(field: Field, weights: Tensor) -> None:
    with pytest.raises(ConfigError, match="use field=wide or fewer bits"):
        field.admit(weights)
