"""The engine's answers equal full forwards, whatever prefix is shared and wherever the forward is cut."""

import pytest
import torch

from smd_research.models import Bundle, sources
from smd_research.models.attention import LocalAttention
from smd_research.models.extension import ExtensionEngine, LanguagePrior
from smd_research.models.families import FAMILIES
from smd_research.models.hooked import HookedModel

ROWS = 20


@pytest.fixture(scope="module", params=FAMILIES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return sources.random(request.param)


def _ids(bundle: Bundle) -> torch.Tensor:
    return torch.randint(5, bundle.geometry.vocab, (ROWS,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("upto", [0, 1, 4])
def test_extensions_equal_full_forwards(bundle: Bundle, upto: int) -> None:
    ids, engine = _ids(bundle), ExtensionEngine(bundle, upto)
    expected = HookedModel(bundle, None, upto).forward(LocalAttention(), torch.arange(ROWS), ids=ids[None])[0]
    prefix = engine.start()
    for position, token in enumerate(ids.tolist()):
        found = engine.extend(prefix, torch.tensor([7, token, 9]))
        torch.testing.assert_close(found.hidden[1], expected[position], atol=2e-5, rtol=1e-4)
        engine.advance(prefix, token, found, 1)
    assert engine.spent.candidates == 3 * ROWS
    assert (engine.spent.flops > 0) == (upto > 0)


def test_small_batches_change_nothing() -> None:
    bundle = sources.random("llama")
    engine, small = ExtensionEngine(bundle, 2), ExtensionEngine(bundle, 2)
    small.batch = 3
    prefix = engine.start()
    engine.advance(prefix, 11)
    candidates = torch.arange(10)
    one, two = engine.extend(prefix, candidates), small.extend(prefix, candidates)
    torch.testing.assert_close(one.hidden, two.hidden)
    torch.testing.assert_close(one.own[1][0], two.own[1][0])


def test_a_copied_prefix_is_independent() -> None:
    bundle = sources.random("llama")
    engine = ExtensionEngine(bundle, 2)
    prefix = engine.start()
    engine.advance(prefix, 11)
    before = engine.extend(prefix, torch.tensor([5])).hidden
    twin = prefix.copy()
    engine.advance(twin, 12)
    assert (prefix.length, twin.length) == (1, 2)
    assert torch.equal(engine.extend(prefix, torch.tensor([5])).hidden, before)


@pytest.mark.parametrize("position", [0, 7])
def test_layer_0_tables_hold_what_the_model_computes(bundle: Bundle, position: int) -> None:
    token, engine, seen = 42, ExtensionEngine(bundle, 0), LocalAttention()
    HookedModel(bundle, None, 1).forward(seen, torch.tensor([position]), ids=torch.tensor([[token]]))
    k, v, _ = seen.store.get(0)
    table = engine.layer0(position)
    torch.testing.assert_close(table.k[token], k[0, :, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(table.v[token], v[0, :, 0], atol=1e-5, rtol=1e-4)
    assert table.spec == seen.specs[0]
    embedded = HookedModel(bundle, None, 0).forward(
        LocalAttention(), torch.tensor([position]), ids=torch.tensor([[token]])
    )
    torch.testing.assert_close(engine.embedded(position)[token], embedded[0, 0])


def test_the_prior_is_the_models_own_and_follows_its_hypotheses() -> None:
    bundle, prior = sources.random("gemma2"), None
    prior = LanguagePrior(bundle)
    prior.step(torch.tensor([3, 4]))
    prior.select(torch.tensor([1, 1, 0]))
    got = prior.step(torch.tensor([8, 9, 9]))
    for row, ids in enumerate([[4, 8], [4, 9], [3, 9]]):
        expected = torch.log_softmax(bundle.model(input_ids=torch.tensor([ids])).logits[0, -1], -1)
        torch.testing.assert_close(got[row], expected, atol=1e-4, rtol=1e-4)
