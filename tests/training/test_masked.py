"""A masked model learns to read what stands in a place, and is trained once."""

import math

import pytest
import torch

from smd_research.core.errors import ConfigError
from smd_research.models import Bundle, sources
from smd_research.models.pair_reader import ReaderShape
from smd_research.training.masked import reader_of
from smd_research.training.reader_recipe import ReaderRecipe

RECIPE = ReaderRecipe(ReaderShape(64, 1, 4, 16), 60, 16, 4e-3)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return sources.random("llama")


def corpus() -> list[tuple[int, ...]]:
    drawn = torch.randint(5, 200, (200, 16), generator=torch.Generator().manual_seed(0))
    return [tuple(row) for row in drawn.tolist()]


def test_it_reads_the_place_and_not_without_it(bundle: Bundle) -> None:
    reader, texts = reader_of(bundle, corpus(), RECIPE), torch.tensor(corpus()[:20])
    places = torch.arange(20) % 16
    truth = texts[torch.arange(20), places]
    seen, unseen = (reader.one_masked(texts, places, hide).argmax(-1) == truth for hide in (False, True))
    assert float(seen.float().mean()) > 0.6
    assert float(unseen.float().mean()) < 0.2, "random tokens have no context"


def test_the_same_request_is_trained_once_and_leaves_the_generator_alone(bundle: Bundle) -> None:
    few = ReaderRecipe(ReaderShape(16, 1, 4, 8), 1, 4, 1e-3)
    state = torch.random.get_rng_state()
    one = reader_of(bundle, corpus(), few)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert reader_of(bundle, [list(text) for text in corpus()], few) is one
    assert not any(parameter.requires_grad for parameter in one.parameters())
    assert not one.training


@pytest.mark.parametrize(
    ("shape", "changed", "message"),
    [
        (ReaderShape(16, 1, 4, 2), {}, "reader_tokens=2"),
        (ReaderShape(18, 1, 4, 8), {}, "no multiple of 4"),
        (ReaderShape(16, 0, 4, 8), {}, "at least 1"),
        (ReaderShape(16, 1, 4, 8), {"learning_rate": 0.0}, "reader_learning_rate=0"),
        (ReaderShape(16, 1, 4, 8), {"learning_rate": math.nan}, "reader_learning_rate=nan"),
    ],
)
def test_a_recipe_out_of_range_is_refused(shape: ReaderShape, changed: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReaderRecipe(**{"shape": shape, "steps": 1, "batch": 1, "learning_rate": 1e-3, **changed})  # type: ignore[arg-type]


def test_too_little_public_text_is_said(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="needs more public text than 16 tokens"):
        reader_of(bundle, corpus()[:1], RECIPE)
