"""Values that were not computed are expected from those that were: few candidates of a surprising text are run."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks.base import Public
from attacks.prompts.partial_attention_inversion import PartialAttentionInversion
from attacks.prompts.partial_attention_inversion.expectation import Expectation
from attacks.prompts.partial_attention_inversion.left_to_right import LeftToRight, _stands_out
from attacks.prompts.partial_attention_inversion.row_space import RowSpace
from smd_research.boundary import Boundary
from smd_research.data.prompts import Prompt
from smd_research.defenses.smd import Smd
from smd_research.models import sources
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine

LAYER = 2
TRIED = 400


def values_after(bundle: Bundle, before: list[int], tokens: Tensor) -> Tensor:
    """Values of tokens at the layer, after others."""
    engine = ExtensionEngine(bundle, LAYER)
    prefix = engine.start()
    for token in before:
        engine.advance(prefix, token)
    return engine.values(prefix, tokens)


def space_of(rows: Tensor) -> RowSpace:
    """The span of values ``[tokens, kv_heads, head_dim]``, from averages of them."""
    weights = torch.rand(2 * len(rows), len(rows), generator=torch.Generator().manual_seed(0)).softmax(1)
    average = torch.einsum("rt,thd->hrd", weights, rows)
    space = RowSpace.of(average, torch.full((len(average),), 1e-7))
    assert space.rank == len(rows)
    return space


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def values(embedded: Bundle) -> Tensor:
    return values_after(embedded, [7, 300, 41, 900], torch.arange(embedded.geometry.vocab))


def places(embedded: Bundle, values: Tensor, space: RowSpace, tokens: list[int], grouped: bool) -> list[int]:
    """Where tokens that were not tried stand by what those that were tell, at best over the laws."""
    tried = torch.arange(3, len(values), len(values) // TRIED)
    likely = Expectation(embedded, LAYER).log_likelihoods(space, tried, values[tried], grouped)
    return [int((likely > likely[:, token, None]).sum(1).min()) for token in tokens]


@pytest.mark.parametrize("grouped", [False, True])
def test_tokens_in_the_span_are_expected_there(embedded: Bundle, values: Tensor, grouped: bool) -> None:
    secret = [1000, 2222, 3456]
    found = places(embedded, values, space_of(values[secret]), secret, grouped)
    assert max(found) < embedded.geometry.vocab // 20


def test_tokens_that_are_not_in_the_span_are_not(embedded: Bundle, values: Tensor) -> None:
    others = torch.randn(3, *values.shape[1:], generator=torch.Generator().manual_seed(0))
    found = places(embedded, values, space_of(others), list(range(1000, 1500, 50)), grouped=False)
    assert np.mean(found) > embedded.geometry.vocab / 5


def test_a_surprising_text_takes_a_part_of_the_vocabulary(embedded: Bundle) -> None:
    ids = np.random.default_rng(3).integers(5, embedded.geometry.vocab, 8).tolist()
    with Smd(inner_layers=LAYER).prepare(embedded).deploy(Boundary("inproc")) as deployment:
        deployment.generate(Prompt("p", "", tuple(ids)), 16)
        view = deployment.boundary.view(deployment.shows)
    attack = PartialAttentionInversion()
    attack.fit(Public(embedded, "smd"))
    guess = attack.recover(view, np.random.default_rng(0))
    assert guess.ids == tuple(ids)
    assert guess.certified
    assert attack.recover(view, np.random.default_rng(0)).spent.candidates < 0.4 * len(ids) * embedded.geometry.vocab


def test_what_was_read_before_does_not_change_a_reading(embedded: Bundle) -> None:
    texts = [[11, 500, 42, 7], [1234, 9, 88, 2000]]
    spaces = [
        space_of(torch.cat([values_after(embedded, text[:i], torch.tensor([text[i]])) for i in range(4)]))
        for text in texts
    ]
    alone = LeftToRight(embedded, LAYER, 65536, 10).read(spaces[1], 4, [])
    reader = LeftToRight(embedded, LAYER, 65536, 10)
    assert reader.read(spaces[0], 4, []).ids == texts[0]
    assert reader.read(spaces[1], 4, []) == alone
    assert alone.ids == texts[1]


def test_a_nearest_one_stands_out_among_values_that_all_lie_near() -> None:
    """Half of the others are near the span, as attention sinks are: deviations alone would let nothing stand out."""
    space = RowSpace(torch.empty(3, 64, 64), torch.arange(3), 16, blur=-18.0)
    away = torch.cat([torch.linspace(-11, -10, 50), torch.linspace(-1, 0, 50)]).double()
    assert not _stands_out(space, torch.cat([away, torch.tensor([-12.0])]))
    assert not _stands_out(space, torch.cat([away, torch.tensor([-17.5])]))
    assert _stands_out(space, torch.cat([away, torch.tensor([-19.0])]))
