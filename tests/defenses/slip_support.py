"""What the tests of weight decomposition share."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.defenses.slip import Slip, SlipDeployment, SlipPrepared
from smd_research.models import Bundle, sources

FAMILIES = [family for family in sources.FAMILIES if family != "gpt_oss"]
SHAPES = ["llama", "gpt2", "qwen2", "gpt_neox"]


@cache
def random_bundle(family: str) -> Bundle:
    """One random model of a family."""
    return sources.random(family)


_PREPARED: dict[tuple[object, ...], SlipPrepared] = {}


def prepared(bundle: Bundle, **options: object) -> SlipPrepared:
    """A model decomposed, once for all options that leave its parts as they are."""
    chosen = Slip(**options)  # type: ignore[arg-type]
    key = id(bundle), str(chosen.spec), chosen.bits
    if key not in _PREPARED:
        _PREPARED[key] = chosen.prepare(bundle)  # which keeps its bundle, so that no identity is used twice
    made = _PREPARED[key]
    said = chosen._parameters(made.parts)
    return replace(made, defense=chosen, parameters=said, guarantee=chosen._guarantee(), shows=chosen.shows)


def deployed(bundle: Bundle, boundary: Boundary | None = None, **options: object) -> SlipDeployment:
    """A deployment of it."""
    made = prepared(bundle, **options).deploy(boundary or Boundary(record=False))
    assert isinstance(made, SlipDeployment)
    return made


def random_ids(bundle: Bundle, seed: int, rows: int, batch: int = 1) -> Tensor:
    """Token ids ``[batch, rows]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, bundle.geometry.vocab, (batch, rows), generator=generator)
