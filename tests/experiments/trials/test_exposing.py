"""What a split exposes, measured and in closed form: nothing where nothing is secret, every direction of a hole."""

import pytest

from experiments.trials.exposing import exposure
from smd_research.defenses.slip import Slip
from smd_research.defenses.slip.accounting import Sizes
from smd_research.mechanisms.decomposition.splits import Kind
from smd_research.models.sources import random


@pytest.mark.parametrize(("kind", "low", "high"), [("svd", 0.99, 1.0), ("svd_fill", 0.0, 0.2)])
def test_figures_of_a_split(kind: Kind, low: float, high: float) -> None:
    bundle = random("llama")
    found = Slip(rank=4, split=kind).prepare(bundle)
    values = exposure(bundle, found.public, found.parts.ranks, [10.0, 20.0], [12.0, 24.0], [4, 8])
    means = {name: estimate.mean for name, estimate in values.items()}
    assert means["exposed_increase"] == pytest.approx(6 / 12)
    secret = sum(4 * (m + n) for m, n in Sizes.of(bundle).matrices.values())
    assert means["secret_parameters"] == secret
    assert means["increase_per_parameter"] == pytest.approx(0.5 / (secret / 1e6))
    for name in ("hidden_overlap", "hidden_overlap_square", "hidden_overlap_oblong"):
        assert low <= means[name] <= high
    parts = ("secret_flops", "attention_flops", "protocol_flops")
    assert means["trusted_flops"] == pytest.approx(sum(means[name] for name in parts))


def test_nothing_secret_exposes_nothing() -> None:
    bundle = random("llama")
    found = Slip(split="none", bits=None, visibility="boundary").prepare(bundle)
    assert exposure(bundle, found.public, found.parts.ranks, [1.0], [1.0], [2]) == {}


def test_a_model_that_lost_nothing_may_stand_below_the_original() -> None:
    bundle = random("llama")
    found = Slip(rank=4, split="bottom").prepare(bundle)
    better = exposure(bundle, found.public, found.parts.ranks, [10.0, 20.0, 15.0], [9.9, 19.7, 14.8], [4, 8, 6])
    for name in ("exposed_increase", "increase_per_parameter"):
        assert better[name].low < better[name].mean < better[name].high < 0
