"""The model that ships with the package."""

import hashlib
import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from smd_research.core.paths import PACKAGE
from smd_research.training.heldout import held_out, trigram_of_train

FOLDER = PACKAGE / "models" / "embedded"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


def test_size_and_shape() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 12e6
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert (config["vocab_size"], config["head_dim"], config["max_position_embeddings"]) == (4096, 32, 512)
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_983_552


def test_tokenizer_has_exactly_4096_entries(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(tokenizer) == 4096
    assert sorted(tokenizer.get_vocab().values()) == list(range(4096))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_tokenizer_returns_any_unicode(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_the_card_names_these_weights() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() in text


@pytest.mark.slow
def test_speaks_the_registers_far_better_than_a_trigram_model(tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    trigram = trigram_of_train(tokenizer, "mixed", 1_000_000, seed=2)
    rows = held_out(model, tokenizer, trigram, documents=40)
    for row in rows:
        assert row.model < 0.75 * row.trigram, row
    said = re.findall(r"^\| (\w+) \| [\d,]+ \| ([\d.]+) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    stated = {register: float(perplexity) for register, perplexity in said}
    for row in rows:  # 40 of the card's 200 documents
        assert row.model == pytest.approx(stated[row.register], rel=0.25)
