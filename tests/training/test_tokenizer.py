"""The byte-level tokenizer."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from smd_research.core.errors import ConfigError
from smd_research.data.synthetic import generate
from smd_research.training.tokenizer import train_tokenizer

TEXTS = [document.text for document in generate("mixed", "train", 300)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 1024, context=64)


def test_exact_size_and_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == 1024
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert special == (0, 1, 2)
    assert tokenizer("Hello")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.model_max_length == 64


def test_numbers_go_in_pairs_of_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("12345678", add_special_tokens=False)["input_ids"])
    assert all(len(piece) <= 2 for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_unicode_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids[1:]) == text
    assert max(ids) < 1024


def test_comes_back_from_disk(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [again(text)["input_ids"] for text in TEXTS[:20]] == [tokenizer(text)["input_ids"] for text in TEXTS[:20]]


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="instead of 4096"):
        train_tokenizer(["few words"], 4096, context=64)
