"""Vertical operators against their formulas, and what they keep."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.shaking import AFFINE, OPERATORS, Key, KeyStream, affine, shake
from smd_research.mechanisms.shaking.streams import Floats

STREAM = KeyStream(bytes(range(16)))
ROWS, WIDTH, SIGMA = 400, 32, 0.3


def table(rows: int = ROWS) -> Floats:
    return np.random.default_rng(0).normal(0.1, SIGMA, (rows, WIDTH))


def key(written: str) -> Key:
    """A key with operators written as ``inflate:0.5+tilt:1``."""
    words = (word.split(":") for word in written.split("+"))
    return Key(1, bytes(16), "m", "t", ROWS, WIDTH, 1.0, 1, (), tuple((op, float(a)) for op, a in words), False)


@pytest.mark.parametrize("name", OPERATORS)
def test_strength_nought_changes_nothing_and_the_stream_decides_the_rest(name: str) -> None:
    operator = OPERATORS[name]
    np.testing.assert_allclose(operator(table(), 0.0, STREAM, SIGMA), table(), atol=1e-14)
    one, same = (operator(table(), 0.5, STREAM, SIGMA) for _ in range(2))
    other = operator(table(), 0.5, STREAM.child("x"), SIGMA)
    np.testing.assert_array_equal(one, same)
    assert one.dtype == np.float64
    assert np.abs(one - other).max() > 0.01
    assert np.abs(one - table()).max() > 0.01


def test_addv_adds_one_vector_of_the_given_size_to_every_row() -> None:
    added = OPERATORS["addv"](table(), 0.5, STREAM, SIGMA) - table()
    np.testing.assert_allclose(added, np.broadcast_to(added[0], added.shape), atol=1e-14)
    np.testing.assert_allclose(added[0], 0.5 * SIGMA * STREAM.normal(WIDTH), atol=1e-14)


def test_inflate_scales_every_column_by_at_most_its_strength() -> None:
    factors = OPERATORS["inflate"](table(), 0.5, STREAM, SIGMA) / table()
    np.testing.assert_allclose(factors, np.broadcast_to(factors[0], factors.shape), rtol=1e-10)
    assert 0.5 < factors.min() < 0.7
    assert 1.3 < factors.max() < 1.5


@pytest.mark.parametrize("strength", [0.1, 1.0, 3.0])
def test_tilt_is_a_rotation(strength: float) -> None:
    turned = OPERATORS["tilt"](np.eye(WIDTH), strength, STREAM, SIGMA)
    np.testing.assert_allclose(turned @ turned.T, np.eye(WIDTH), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1.0)
    generator = STREAM.normal(WIDTH, WIDTH)
    small = OPERATORS["tilt"](np.eye(WIDTH), 1e-4, STREAM, SIGMA)
    expected = np.eye(WIDTH) + 1e-4 * (generator - generator.T) / np.sqrt(2 * WIDTH)
    np.testing.assert_allclose(small, expected, atol=1e-6)
    before, after = pdist(table()), pdist(OPERATORS["tilt"](table(), strength, STREAM, SIGMA))
    np.testing.assert_allclose(before, after, rtol=1e-10)


def test_noise_of_a_strength_has_the_same_mean_square_whatever_its_law() -> None:
    rows = 4000
    noise = {
        name: OPERATORS[name](table(rows), 0.7, STREAM, SIGMA) - table(rows) for name in set(OPERATORS) - {*AFFINE}
    }
    for name in ("gaussian", "laplace"):
        assert noise[name].std() == pytest.approx(0.7 * SIGMA, rel=0.02)
    scale = 0.7 * SIGMA / np.sqrt(2)
    assert stats.kstest(noise["laplace"].ravel()[:5000], stats.laplace(scale=scale).cdf).pvalue > 1e-3
    assert stats.kstest(noise["gaussian"].ravel()[:5000], stats.norm(scale=0.7 * SIGMA).cdf).pvalue > 1e-3
    norms = np.linalg.norm(noise["dx_fixp"], axis=1)
    law = stats.gamma(WIDTH, scale=0.7 * SIGMA / np.sqrt(WIDTH))
    assert stats.kstest(norms, law.cdf).pvalue > 1e-3
    directions = noise["dx_fixp"] / norms[:, None]
    assert np.abs(directions.mean(0)).max() < 5 / np.sqrt(WIDTH * rows)


def test_a_key_composes_its_operators_in_order_each_with_values_of_its_own() -> None:
    two = key("tilt:0.5+inflate:0.5")
    step = shake(table(), replace(two, vertical=two.vertical[:1]), SIGMA)
    assert np.abs(shake(table(), two, SIGMA) - step).max() > 0.01
    swapped = shake(table(), replace(two, vertical=two.vertical[::-1]), SIGMA)
    assert np.abs(shake(table(), two, SIGMA) - swapped).max() > 0.01
    first, both = (shake(table(), key(text), SIGMA) - table() for text in ("gaussian:1", "gaussian:1+gaussian:1"))
    assert abs(np.corrcoef(first.ravel(), (both - first).ravel())[0, 1]) < 0.05
    assert np.abs(shake(table(), two, SIGMA, "head") - shake(table(), two, SIGMA)).max() > 0.01
    np.testing.assert_array_equal(shake(table(), two), shake(table(), two, float(table().std())))


def test_the_affine_part_is_the_whole_of_a_key_without_noise_and_can_be_undone() -> None:
    noiseless = key("addv:0.5+inflate:0.5+tilt:1+addv:2")
    matrix, offset = affine(noiseless, WIDTH, SIGMA)
    shaken = shake(table(), noiseless, SIGMA)
    np.testing.assert_allclose(shaken, table() @ matrix + offset, atol=1e-12)
    np.testing.assert_allclose((shaken - offset) @ np.linalg.inv(matrix), table(), atol=1e-12)
    noisy = key("addv:0.5+gaussian:1+tilt:1")
    residual = shake(table(), noisy, SIGMA) - (
        table() @ affine(noisy, WIDTH, SIGMA)[0] + affine(noisy, WIDTH, SIGMA)[1]
    )
    assert residual.std() == pytest.approx(SIGMA, rel=0.05)


def test_what_is_no_operator_or_no_strength_is_refused() -> None:
    with pytest.raises(ConfigError, match="operator 'stir' is unknown"):
        key("stir:1")
    with pytest.raises(ConfigError, match="strength -1 of tilt"):
        key("tilt:-1")
    with pytest.raises(ConfigError, match="strength inf of tilt"):
        key("tilt:inf")
