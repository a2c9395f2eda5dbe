"""A model with a place for a function: nothing changes without one, and gradients come back through the rest."""

import pytest
import torch

from smd_research.models import sources
from smd_research.models.attention import LocalAttention
from smd_research.models.hooked import HookedModel
from smd_research.models.spliced import SplicedModel

IDS = torch.tensor([[5, 6, 7, 8, 9, 3]])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_the_function_stands_where_a_split_model_is_cut(family: str, layer: int) -> None:
    bundle = sources.random(family)
    spliced, positions = SplicedModel(bundle, layer), torch.arange(IDS.shape[1])
    stock = bundle.model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(spliced.logits(IDS), stock)
    seen = []
    changed = spliced.logits(IDS, lambda states: seen.append(states) or 2 * states)
    states = HookedModel(bundle, None, layer).forward(LocalAttention(), positions, ids=IDS)
    torch.testing.assert_close(seen[0], states.clone())
    rest = HookedModel(bundle, layer).forward(LocalAttention(), positions, hidden=2 * states)
    torch.testing.assert_close(changed, rest.clone(), rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_function_and_no_weight() -> None:
    bundle = sources.random("llama")
    before, factor = bundle.fingerprint(), torch.ones((), requires_grad=True)
    SplicedModel(bundle, 1).logits(IDS, lambda states: factor * states).square().sum().backward()
    assert factor.grad is not None
    assert float(factor.grad) != 0
    assert all(parameter.grad is None for parameter in bundle.model.parameters())
    assert bundle.fingerprint() == before
