"""Masks used twice, or made of floats, show activations; uniform masks used once show nothing."""

from functools import cache

import numpy as np
import pytest
import torch
from exposed import FIELD, Split, encoded, inputs, split_model, strict_view
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.base import Public, WeightAttack
from attacks.weights.float_mask import FloatMask, unmasked
from attacks.weights.mask_reuse import MaskReuse, differences, masked_rows
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import WeightGuess
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import PublicText
from smd_research.defenses.slip import Slip
from smd_research.models import sources

NEW = 6
TEXT = tuple(range(7, 47))


@cache
def model() -> Split:
    return split_model(sources.random("llama"), bits=16)


@cache
def deployed(masking: str) -> tuple[Public, tuple[AdversaryView, ...]]:
    """Two requests under a masking, as they are served."""
    prepared = Slip(rank=4, masking=masking, verify=0).prepare(model().bundle, PublicText([tuple(range(5, 60))]))
    boundary, views = Boundary(), []
    with prepared.deploy(boundary) as deployment:
        for first in (9, 50):
            deployment.generate(Prompt("p", "", tuple(range(first, first + 30))), NEW)
            views.append(boundary.view(deployment.shows))
        return Public(prepared.public, "slip", prepared.parameters), tuple(views)


def attacked(attack: WeightAttack, masking: str) -> WeightGuess:
    public, views = deployed(masking)
    attack.fit(public)
    return attack.restore(views, np.random.default_rng(0))


def test_two_uses_of_a_mask_give_exact_differences() -> None:
    view = strict_view(model(), TEXT, "reused")
    for number, a in enumerate(inputs(model(), TEXT)):
        x = encoded(model(), number, a)
        found = differences(masked_rows([view])[number], FIELD)
        assert found.pairs[:, 0].tolist() == list(range(1, len(TEXT)))
        assert torch.equal(found.values, x[found.pairs[:, 0]] - x[found.pairs[:, 1]])


def test_one_use_gives_none() -> None:
    """Negative control."""
    for rows in masked_rows([strict_view(model(), TEXT)]).values():
        assert not len(differences(rows, FIELD).pairs)


def test_a_deployment_is_told_by_whether_it_reuses_masks() -> None:
    reused, once = attacked(MaskReuse(), "reused"), attacked(MaskReuse(), "uniform")
    assert reused.certified
    assert reused.facts["rows_sharing_masks"] > 0.4, "the second request's rows, and every token after the first"
    assert reused.facts["hidden_bits"] < 36
    assert once.certified is False
    assert once.facts["rows_sharing_masks"] == 0
    assert once.facts["hidden_bits"] == pytest.approx(41, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 2**30))
def test_any_reuse_is_found_whatever_the_activations(rows: int, seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(rng.integers(0, FIELD.prime, (rows, 40)))
    which = torch.from_numpy(rng.integers(0, rows, rows))
    x = torch.from_numpy(rng.integers(-size, size + 1, (rows, 40)))
    found = differences(FIELD.add(x, masks[which]), FIELD)
    assert len(found.pairs) == rows - len(which.unique())
    assert torch.equal(found.values, x[found.pairs[:, 0]] - x[found.pairs[:, 1]])


def test_a_float_mask_lets_large_activations_through() -> None:
    rng = np.random.default_rng(0)
    strength = torch.where(torch.arange(64) < 8, 10.0, 0.1)
    x = torch.from_numpy(rng.standard_normal((200, 64))) * strength + 2 * torch.eye(64)[30]
    mask = torch.from_numpy(rng.standard_normal((200, 64)))
    error = float((unmasked(x + mask) - x).norm() / x.norm())
    assert error < 0.15
    assert error < 0.6 * float(mask.norm() / x.norm())


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 80), st.integers(48, 180), st.integers(0, 10**6), st.booleans())
def test_of_noise_alone_nothing_is_kept(rows: int, columns: int, seed: int, uniform: bool) -> None:
    """Negative control, with few rows as well: what noise reaches by chance is not taken for a direction."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.random((rows, columns)) if uniform else rng.standard_normal((rows, columns)))
    noise -= 0.5 * uniform
    assert float(unmasked(noise).square().sum()) < 0.05 * float(noise.square().sum())


def test_a_deployment_is_told_by_whether_its_masks_are_floats() -> None:
    floats, residues = attacked(FloatMask(), "float"), attacked(FloatMask(), "uniform")
    assert floats.facts["signal_share_worst"] > 0.3
    assert residues.facts["signal_share_worst"] < 0.01


def test_what_cannot_be_run_is_named() -> None:
    with pytest.raises(ConfigError, match="rows"):
        MaskReuse(rows=1)
    nothing = AdversaryView((), frozenset(), 0, ())
    for attack in (MaskReuse(), FloatMask()):
        with pytest.raises(NotApplicableError, match="sends none"):
            attack.fit(Public(model().bundle, "none"))
        attack.fit(model().public)
        with pytest.raises(NotApplicableError, match="needs masked inputs"):
            attack.restore([nothing], np.random.default_rng(0))
