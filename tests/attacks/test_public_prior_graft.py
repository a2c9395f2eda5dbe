"""What a public relative gives back of a model that descends from it, and that a stranger gives nothing."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from exposed import Split, split_model

from attacks.weights.public_prior_graft import PublicPriorGraft
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import WeightGuess
from smd_research.core.seeds import generator
from smd_research.models import sources
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of, with_weights


def descendant(bundle: Bundle, change: float) -> Bundle:
    """A model whose matrices have all moved a little, as fine-tuning moves them."""
    rng = generator(0, "descendant")
    moved = {}
    for name, layer in linear_layers(bundle).items():
        weight = weight_of(layer)
        step = torch.from_numpy(rng.standard_normal(weight.shape)).float()
        moved[name] = weight + change * weight.norm() / step.norm() * step
    return with_weights(bundle, moved)


@cache
def model(kind: str = "svd") -> Split:
    return split_model(descendant(sources.random("llama"), 0.05), kind)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The public relative's folder."""
    return saved(sources.random("llama"), tmp_path_factory.mktemp("base"))


def saved(bundle: Bundle, folder: Path) -> str:
    bundle.model.save_pretrained(folder)
    bundle.tokenizer.save_pretrained(folder)
    return str(folder)


def attacked(one: Split, relative: str, **options: object) -> WeightGuess:
    attack = PublicPriorGraft(relative, **options)  # type: ignore[arg-type]
    attack.fit(one.public)
    assert attack.relative.name
    return attack.restore([], np.random.default_rng(0))


def test_the_projection_of_a_relative_is_most_of_the_secret_part(base: str) -> None:
    projected = model().error(attacked(model(), base))
    top = model().error(attacked(model(), base, method="top_k"))
    as_it_is = model().error(attacked(model(), base, method="relative"))
    assert projected < 0.1
    assert projected < top < as_it_is, "the exposed part says where the secret one lies, and all else exactly"


@pytest.mark.parametrize("kind", ["svd_fill", "random_lowrank"])
def test_other_splits_leave_the_top_components(base: str, kind: str) -> None:
    assert model(kind).error(attacked(model(kind), base, method="top_k")) < 0.5


def test_of_an_unchanged_model_everything_comes_back(base: str) -> None:
    one = split_model(sources.random("llama"))
    assert one.error(attacked(one, base)) < 1e-3
    assert one.error(attacked(one, base, method="top_k")) < 1e-3


@pytest.mark.parametrize("method", ["projected", "top_k"])
def test_a_stranger_of_the_same_shape_gives_nothing(method: str, tmp_path: Path) -> None:
    """Negative control."""
    one = split_model(sources.random("llama"))
    assert one.error(attacked(one, saved(sources.random("llama", seed=1), tmp_path), method=method)) > 0.9


def test_what_cannot_be_run_is_named(base: str) -> None:
    with pytest.raises(ConfigError, match="method"):
        PublicPriorGraft(method="magic")
    with pytest.raises(ConfigError, match="components"):
        PublicPriorGraft(components=0)
    with pytest.raises(NotApplicableError, match="same shape"):
        attacked(split_model(sources.random("llama")), "embedded")
    with pytest.raises(NotApplicableError, match="keeps none"):
        attacked(split_model(sources.random("llama"), rank=0), base)
