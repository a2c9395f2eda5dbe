"""What a model writes of its own accord follows its own law."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from smd_research.core.errors import UnsupportedModelError
from smd_research.models import sources
from smd_research.models.unprompted import unprompted


def test_the_first_token_follows_the_model_s_whole_distribution() -> None:
    bundle = sources.random("llama")
    begin = bundle.tokenizer.bos_token_id if bundle.tokenizer.bos_token_id is not None else bundle.end_id
    with torch.inference_mode():
        law = bundle.model(input_ids=torch.tensor([[begin]])).logits[0, -1].double().softmax(-1).numpy()
    first = np.array([text[0] for text in unprompted(bundle, 2000, length=1)])
    groups = np.digitize(law.argsort().argsort(), np.linspace(0, len(law), 9)[1:-1])
    expected = np.bincount(groups, weights=law) * len(first)
    assert len(first) > 500
    assert stats.chisquare(np.bincount(groups[first], minlength=8), expected).pvalue > 1e-3


def test_texts_end_where_the_model_ends_them_and_repeat_with_the_seed() -> None:
    bundle = sources.random("llama")
    once, again, other = (unprompted(bundle, 1000, seed, length=16) for seed in (1, 1, 2))
    assert sum(map(len, once)) >= 1000
    assert [text.tolist() for text in once] == [text.tolist() for text in again]
    assert [text.tolist() for text in once] != [text.tolist() for text in other]
    assert not any(set(bundle.end_ids) & set(text[:-1].tolist()) for text in once)


def test_a_model_that_cannot_begin_is_refused() -> None:
    class Silent:
        bos_token_id = eos_token_id = None

    with pytest.raises(UnsupportedModelError, match="begin"):
        unprompted(replace(sources.random("llama"), tokenizer=Silent(), end_ids=()), 10)
