"""A lens names tokens by their states; it says nothing of states that it was not made for."""

import pytest
import torch
from torch import Tensor

from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.models import Bundle, sources
from smd_research.models.token_lens import RidgeMap, TokenLens, states_after, token_lens

LAYER = 3


def _same(states: Tensor) -> Tensor:
    return states


def _backwards(states: Tensor) -> Tensor:
    return states.flip(-1)


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


def _texts(bundle: Bundle, split: str, count: int, tokens: int) -> tuple[tuple[int, ...], ...]:
    return tuple(prompt.ids for prompt in tokenised(generate("mixed", split, count, 1), bundle.tokenizer, tokens, 0))


def _named(lens: TokenLens, bundle: Bundle, ids: Tensor, states: Tensor) -> float:
    """Share of tokens that are among the four likest, of the vocabulary's 4,096."""
    first, later = lens.likeness(states[:1], first=True), lens.likeness(states, first=False)[1:]
    likest = torch.cat([first, later]).topk(4).indices
    return float((likest == ids[:, None]).any(1).float().mean())


def test_most_tokens_are_named_and_none_by_another_texts_states(embedded: Bundle) -> None:
    lens = token_lens(embedded, LAYER, _texts(embedded, "train", 40, 64), _same)
    ids = [torch.tensor(text) for text in _texts(embedded, "validation", 6, 24)]
    states = states_after(embedded, LAYER, ids)
    right = [_named(lens, embedded, one, seen) for one, seen in zip(ids, states, strict=True)]
    wrong = [_named(lens, embedded, one[1:], seen[1:]) for one, seen in zip(ids, states[1:] + states[:1], strict=True)]
    assert sum(right) / 6 > 0.75
    assert sum(wrong) / 6 < 0.3  # texts of the same kind share words, at the same places


def test_random_tokens_are_enough_to_name_many(embedded: Bundle) -> None:
    lens = token_lens(embedded, 1, (), _same)
    (ids,) = (torch.tensor(text) for text in _texts(embedded, "validation", 1, 24))
    assert _named(lens, embedded, ids, states_after(embedded, 1, [ids])[0]) > 0.6


def test_what_is_made_of_states_before_they_are_seen_is_known(embedded: Bundle) -> None:
    (ids,) = (torch.tensor(text) for text in _texts(embedded, "validation", 1, 24))
    (states,) = states_after(embedded, 1, [ids])
    texts = _texts(embedded, "train", 8, 64)
    same, other = (token_lens(embedded, 1, texts, sent) for sent in (_same, _backwards))
    assert _named(other, embedded, ids, _backwards(states)) == pytest.approx(
        _named(same, embedded, ids, states), abs=0.1
    )
    assert _named(other, embedded, ids, states) < 0.2


def test_a_lens_is_made_once(embedded: Bundle) -> None:
    texts = _texts(embedded, "train", 8, 64)
    assert token_lens(embedded, 1, texts, _same) is token_lens(embedded, 1, texts, _same)


def test_a_ridge_map_without_a_ridge_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, matrix = torch.randn(50, 6, generator=generator), torch.randn(6, 3, generator=generator)
    targets = inputs @ matrix + 2.0
    torch.testing.assert_close(RidgeMap.fitted(inputs, targets, 0.0)(inputs), targets, atol=1e-4, rtol=1e-4)
    heavy = RidgeMap.fitted(inputs, targets, 1e9)
    torch.testing.assert_close(heavy(inputs), targets.mean(0).expand(50, 3), atol=1e-4, rtol=1e-4)
