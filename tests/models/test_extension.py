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


@pytest.mark.parametrize("upto", [0, 1, 4])
def test_a_chain_equals_extensions_one_after_another(bundle: Bundle, upto: int) -> None:
    """Leads follow each other, other candidates follow the leads before them, and a prefix grows by any of them."""
    ids, one, many = _ids(bundle), ExtensionEngine(bundle, upto), ExtensionEngine(bundle, upto)
    slow, fast = one.start(), many.start()
    others = (torch.tensor([7, 9]), torch.tensor([], dtype=torch.long), torch.tensor([11, 12, 13]))
    for start in range(0, ROWS, 5):
        proposed = [torch.cat([ids[start + i, None], others[i % 3]]) for i in range(min(5, ROWS - start))]
        found = many.chain(fast, proposed)
        for place, candidates in enumerate(proposed):
            expected = one.extend(slow, candidates)
            torch.testing.assert_close(found[place].hidden, expected.hidden, atol=2e-5, rtol=1e-4)
            one.advance(slow, int(candidates[0]), expected, 0)
            many.advance(fast, int(candidates[0]), found[place], 0)
    assert slow.length == fast.length == ROWS
    assert one.spent.candidates == many.spent.candidates
    assert one.spent.flops == pytest.approx(many.spent.flops)


def test_an_alternative_of_a_chain_may_be_taken() -> None:
    bundle = sources.random("llama")
    engine = ExtensionEngine(bundle, 2)
    prefix, other = engine.start(), engine.start()
    found = engine.chain(prefix, [torch.tensor([5, 6, 7]), torch.tensor([8])])
    engine.advance(prefix, 7, found[0], 2)
    engine.advance(other, 7)
    after = (engine.extend(one, torch.tensor([8])).hidden for one in (prefix, other))
    torch.testing.assert_close(*after)


@pytest.mark.parametrize("upto", [0, 2])
def test_values_are_those_of_the_block_after(bundle: Bundle, upto: int) -> None:
    ids, engine, further = _ids(bundle).tolist()[:5], ExtensionEngine(bundle, upto), ExtensionEngine(bundle, upto + 1)
    prefix, whole = engine.start(), further.start()
    for token in ids:
        engine.advance(prefix, token)
        further.advance(whole, token)
    candidates = torch.arange(10)
    expected = further.extend(whole, candidates).own[upto][1]
    engine.batch = 4
    torch.testing.assert_close(engine.values(prefix, candidates), expected, atol=2e-5, rtol=1e-4)
    assert engine.spent.candidates == len(ids) + len(candidates)


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


def test_the_prior_takes_several_tokens_at_once() -> None:
    bundle = sources.random("gemma2")
    one, many = LanguagePrior(bundle), LanguagePrior(bundle)
    for token in (3, 4, 5, 6):
        expected = one.step(torch.tensor([token]))
    many.feed(torch.tensor([[3]]))
    torch.testing.assert_close(many.feed(torch.tensor([[4, 5, 6]])), expected, atol=1e-4, rtol=1e-4)
    assert one.length == many.length == 4
