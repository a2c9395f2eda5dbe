"""What the tests of weight decomposition share."""

from functools import cache

import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.defenses.slip import Slip, SlipDeployment
from smd_research.models import Bundle, sources

FAMILIES = [family for family in sources.FAMILIES if family != "gpt_oss"]
SHAPES = ["llama", "gpt2", "qwen2", "gpt_neox"]


@cache
def random_bundle(family: str) -> Bundle:
    """One random model of a family."""
    return sources.random(family)


@cache
def _defense(options: tuple[tuple[str, object], ...]) -> Slip:
    return Slip(**dict(options))  # type: ignore[arg-type]


def deployed(bundle: Bundle, boundary: Boundary | None = None, **options: object) -> SlipDeployment:
    """A deployment; the model is decomposed once for each choice of options."""
    made = _defense(tuple(sorted(options.items()))).deploy(bundle, boundary or Boundary(record=False))
    assert isinstance(made, SlipDeployment)
    return made


def random_ids(bundle: Bundle, seed: int, rows: int, batch: int = 1) -> Tensor:
    """Token ids ``[batch, rows]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, bundle.geometry.vocab, (batch, rows), generator=generator)
