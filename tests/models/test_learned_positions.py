"""Layer 0 of learned positions: one product with the vocabulary tells the tables of all positions."""

import pytest
import torch
from torch import Tensor, nn

from experiments.benches._shapes import small_bundle
from smd_research.models import sources
from smd_research.models.extension import ExtensionEngine
from smd_research.models.learned_positions import learned_positions, norms_of


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_all_positions_are_those_computed_in_place(family: str) -> None:
    engine = ExtensionEngine(small_bundle(family), 1)
    assert engine.learned is not None
    for place in (0, 9, 100):
        real = engine.computed(place)
        torch.testing.assert_close(engine.learned.keys(place), real.k, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(engine.learned.values(place), real.v, atol=1e-5, rtol=1e-5)


def test_a_table_of_some_tokens_is_that_part_of_the_whole() -> None:
    engine = ExtensionEngine(small_bundle("gpt2"), 1)
    some, whole = torch.tensor([7, 3, 3]), engine.layer0(5)
    torch.testing.assert_close(engine.layer0(5, some).v, whole.v[some])
    assert engine.layer0(5, some[:0]).k.shape == (0, *whole.k.shape[1:])


def test_turned_keys_are_not_taken_for_learned_positions() -> None:
    assert ExtensionEngine(sources.random("llama"), 1).learned is None


def test_sixteen_bits_are_computed_where_they_are_asked_for() -> None:
    assert ExtensionEngine(sources.random("gpt2", dtype="bf16"), 1).learned is None


@pytest.mark.parametrize("centred", [True, False])
def test_the_norm_is_told_by_what_comes_out(centred: bool) -> None:
    """Either kind is found; a layer that no norm precedes is not taken for one."""
    generator = torch.Generator().manual_seed(0)
    tokens, places, weight = (torch.randn(rows, 16, generator=generator) for rows in (40, 8, 16))
    norm = nn.LayerNorm(16) if centred else nn.RMSNorm(16, eps=1e-5)

    def embedded(position: int, ids: Tensor) -> Tensor:
        return tokens[ids] + places[position]

    def layer0(states: Tensor) -> tuple[Tensor, Tensor]:
        out = (norm(states) @ weight + 1).view(len(states), 2, 8)
        return out.clone(), out

    def unnormed(states: Tensor) -> tuple[Tensor, Tensor]:
        return states.view(-1, 2, 8).clone(), states.view(-1, 2, 8).clone()

    def in_place(position: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        return layer0(embedded(position, ids))

    def unnormed_in_place(position: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        return unnormed(embedded(position, ids))

    vocabulary = torch.arange(40)
    with torch.inference_mode():
        found = learned_positions(embedded, layer0, in_place, norm, vocabulary, 7)
        assert found is not None
        torch.testing.assert_close(found.values(3), in_place(3, vocabulary)[1], atol=1e-5, rtol=1e-5)
        assert learned_positions(embedded, unnormed, unnormed_in_place, norm, vocabulary, 7) is None
    assert {one.centred for one in norms_of(norm)} == {True, False}
