"""A wrong product is told from a right one; in a ring that is no field it would not be."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from smd_research.mechanisms.integers.field import FIELDS, WIDE, Field
from smd_research.mechanisms.integers.freivalds import BLOCK, Challenge
from smd_research.mechanisms.integers.masks import KEY_BYTES, MaskStream

STREAM = MaskStream(bytes(KEY_BYTES))
FIELD = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
M, N = 96, 64


@cache
def layer(field: Field, seed: int = 0, rows: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Masked input, integer weights, right reply."""
    generator = torch.Generator().manual_seed(seed)
    bound = 2**field.weight_bits
    weights = torch.randint(1 - bound, bound, (M, N), generator=generator)
    x = torch.randint(0, field.prime, (rows, N), generator=generator)
    return x, weights, field.product(x, field.admit(weights))


@given(
    name=st.sampled_from(sorted(FIELDS)),
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    rows=st.integers(1, 5),
    repetitions=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_a_right_reply_is_accepted(name: str, m: int, n: int, rows: int, repetitions: int, seed: int) -> None:
    field = FIELDS[name]
    generator = torch.Generator().manual_seed(seed)
    bound = 2**field.weight_bits
    weights = torch.randint(1 - bound, bound, (m, n), generator=generator)
    x = torch.randint(0, field.prime, (rows, n), generator=generator)
    challenge = Challenge.draw(STREAM, weights, field, repetitions, product=seed)
    reply = field.product(x, field.admit(weights))
    assert challenge.accepts(x, reply)
    wrong = reply.clone()
    wrong[seed % rows, seed % m] = (wrong[seed % rows, seed % m] + 1 + seed) % field.prime
    assert challenge.accepts(x, wrong) == (repetitions == 0)


@FIELD
def test_the_precomputed_side_is_that_of_pythons_integers(field: Field) -> None:
    # more outputs than are turned to float64 at a time
    weights = torch.randint(-5, 6, (BLOCK + 3, 4), generator=torch.Generator().manual_seed(1), dtype=torch.int16)
    challenge = Challenge.draw(STREAM, weights, field, 2)
    expected = challenge.s.numpy().astype(object) @ weights.numpy().astype(object) % field.prime
    assert challenge.q.tolist() == expected.tolist()


def test_real_widths_with_the_largest_residues_stay_exact() -> None:
    m, n = 4096, 11008
    largest = WIDE.prime - 1
    s, x, reply = (torch.full((1, length), largest) for length in (m, n, m))
    # s^T y - q^T x = 0 for the right q, in Python's integers
    q = torch.full((1, n), 2 * largest % WIDE.prime)
    q[0, 0] = (pow(largest, -1, WIDE.prime) * (m * largest**2 - (n - 1) * int(q[0, 1]) * largest)) % WIDE.prime
    assert Challenge(s, q, WIDE.prime).accepts(x, reply)
    q[0, 0] += 1
    assert not Challenge(s, q, WIDE.prime).accepts(x, reply)


@FIELD
def test_ten_thousand_wrong_elements_are_all_seen(field: Field) -> None:
    x, weights, reply = layer(field, rows=10_000)
    generator = torch.Generator().manual_seed(5)
    errors = torch.randint(1, field.prime, (10_000,), generator=generator)
    # small errors and those of a single high bit too
    errors[:1000], errors[1000:2000] = 1, field.prime - 1
    errors[2000:3000] = 2 ** (field.prime.bit_length() - 1)
    where = torch.randint(0, M, (10_000,), generator=generator)
    wrong = reply.clone()
    rows = torch.arange(10_000)
    wrong[rows, where] = field.add(wrong[rows, where], errors)
    challenge = Challenge.draw(STREAM, weights, field, 2)
    assert challenge.accepts(x, reply)
    # each by itself, so that none hides behind another
    assert not any(challenge.accepts(*pair) for pair in zip(x.split(1), wrong.split(1), strict=True))


def constant_offset(x: Tensor, reply: Tensor) -> Tensor:
    return WIDE.add(reply, torch.tensor(12345))


def low_rank(x: Tensor, reply: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    change = torch.randint(-9, 10, (M, 2), generator=generator) @ torch.randint(-9, 10, (2, N), generator=generator)
    return WIDE.add(reply, WIDE.product(x, change.double()))


def zeros(x: Tensor, reply: Tensor) -> Tensor:
    return torch.zeros_like(reply)


def rows_swapped(x: Tensor, reply: Tensor) -> Tensor:
    return reply.roll(1, 0)


def replayed(x: Tensor, reply: Tensor) -> Tensor:
    """The reply to the same activations under earlier masks."""
    masks = STREAM.rows(range(len(x)), 7, N, WIDE.prime)
    return WIDE.product(WIDE.add(x, masks), WIDE.admit(layer(WIDE)[1]))


def other_layer(x: Tensor, reply: Tensor) -> Tensor:
    return WIDE.product(x, WIDE.admit(layer(WIDE, seed=1)[1]))


@pytest.mark.parametrize("tamper", [constant_offset, low_rank, zeros, rows_swapped, replayed, other_layer])
def test_tampering_is_seen(tamper: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, weights, reply = layer(WIDE)
    challenge = Challenge.draw(STREAM, weights, WIDE, 2)
    wrong = tamper(x, reply)
    assert not any(challenge.accepts(*pair) for pair in zip(x.split(1), wrong.split(1), strict=True))


def test_swapped_layers_are_seen_at_both() -> None:
    x, one, _ = layer(WIDE)
    _, two, _ = layer(WIDE, seed=1)
    for product, (asked, answered) in enumerate(((one, two), (two, one))):
        challenge = Challenge.draw(STREAM, asked, WIDE, 2, product)
        assert challenge.accepts(x, WIDE.product(x, WIDE.admit(asked)))
        assert not challenge.accepts(x, WIDE.product(x, WIDE.admit(answered)))


@FIELD
def test_an_error_of_a_multiple_of_the_prime_is_none(field: Field) -> None:
    x, weights, reply = layer(field)
    challenge = Challenge.draw(STREAM, weights, field, 2)
    for times in (1, -1, 1000):
        shifted = reply + times * field.prime
        assert challenge.accepts(x, field.reduce(shifted))
        # unreduced it could overflow in what follows, so it is not let through
        assert not challenge.accepts(x, shifted)


def forged(challenge: Challenge, repetition: int, reply: Tensor, seed: int) -> Tensor:
    """A wrong reply that one repetition of a challenge accepts: an error that its secret is blind to."""
    s = challenge.s[repetition]
    one, other = np.random.default_rng(seed).choice(len(s), 2, replace=False).tolist()
    wrong = reply.clone()
    wrong[:, one] = (wrong[:, one] + s[other]) % challenge.prime
    wrong[:, other] = (wrong[:, other] - s[one]) % challenge.prime
    return wrong


@pytest.mark.parametrize("seed", range(20))
def test_a_forgery_against_one_repetition_is_caught_by_the_others(seed: int) -> None:
    x, weights, reply = layer(WIDE, seed)
    challenge = Challenge.draw(MaskStream(bytes([seed] * KEY_BYTES)), weights, WIDE, 3, seed)
    alone = [Challenge(s, q, WIDE.prime) for s, q in zip(challenge.s.split(1), challenge.q.split(1), strict=True)]
    for repetition in range(3):
        wrong = forged(challenge, repetition, reply, seed)
        assert not torch.equal(wrong, reply)
        assert [one.accepts(x, wrong) for one in alone] == [place == repetition for place in range(3)]
        assert not challenge.accepts(x, wrong)


@pytest.mark.parametrize("seed", range(20))
def test_a_forgery_against_one_product_is_caught_at_another(seed: int) -> None:
    """Even with equal weights: who learnt the challenge of one product knows nothing of the next."""
    x, weights, reply = layer(WIDE, seed)
    one, other = (Challenge.draw(STREAM, weights, WIDE, 1, product) for product in (seed, seed + 1))
    wrong = forged(one, 0, reply, seed)
    assert one.accepts(x, wrong)
    assert not other.accepts(x, wrong)


def test_no_two_challenges_of_many_are_equal_and_their_residues_are_uniform() -> None:
    _, weights, _ = layer(WIDE)
    drawn = torch.cat([Challenge.draw(STREAM, weights, WIDE, 4, product).s for product in range(50)])
    assert len({tuple(s) for s in drawn.tolist()}) == len(drawn) == 200
    # of two equal residues in one column there is one pair in 2^41 draws
    assert all(len(set(column)) == len(column) for column in drawn.T.tolist())
    counts = np.histogram(drawn.numpy(), bins=16, range=(0, WIDE.prime))[0]
    assert chisquare(counts).pvalue > 1e-3


def test_without_repetitions_everything_is_accepted() -> None:
    x, weights, reply = layer(WIDE)
    assert Challenge.draw(STREAM, weights, WIDE, 0).accepts(x, zeros(x, reply))


def test_modulo_a_power_of_two_half_of_the_errors_pass() -> None:
    """Why the field is prime: in Z_{2^64} an error of 2^63 vanishes against every even challenge."""
    rng = np.random.default_rng(7)
    s = rng.integers(0, 2**64, size=(4000, M), dtype=np.uint64)
    error = np.zeros(M, dtype=np.uint64)
    error[3] = 2**63
    with np.errstate(over="ignore"):
        passes = ((s * error).sum(1) == 0).mean()
    assert abs(passes - 0.5) < 0.04
    # the same error modulo the prime is seen by every one of as many challenges
    x, weights, reply = layer(WIDE, rows=1)
    wrong = reply.clone()
    wrong[0, 3] = (wrong[0, 3] + 2**63) % WIDE.prime
    challenge = Challenge.draw(STREAM, weights, WIDE, 200)
    alone = [Challenge(s, q, WIDE.prime) for s, q in zip(challenge.s.split(1), challenge.q.split(1), strict=True)]
    assert not any(one.accepts(x, wrong) for one in alone)


def test_a_reply_of_another_shape_is_an_error_and_secrets_stay_out_of_sight() -> None:
    x, weights, reply = layer(WIDE)
    challenge = Challenge.draw(STREAM, weights, WIDE, 2)
    with pytest.raises(ValueError, match="96 outputs and 64 inputs"):
        challenge.accepts(x, reply[:, 1:])
    assert repr(challenge) == f"Challenge(prime={WIDE.prime})"
