"""The real language model is what it says it is, and is served exactly."""

import pytest
import torch

from smd_research.data.synthetic import generate
from smd_research.data.tokenise import wrapped_prompts
from smd_research.models.bundle import Bundle
from smd_research.models.chat import Conversation
from smd_research.models.hooked import HookedModel

pytestmark = pytest.mark.real


def test_it_knows_a_capital(smollm2: Bundle) -> None:
    ids = torch.tensor([smollm2.tokenizer("The capital of France is")["input_ids"]])
    assert smollm2.decode([int(smollm2.model(ids).logits[0, -1].argmax())]) == " Paris"


def test_its_head_is_its_embedding(smollm2: Bundle) -> None:
    assert smollm2.model.lm_head.weight is smollm2.embedding
    assert smollm2.weight_bytes == pytest.approx(538e6, rel=0.01)


def test_it_is_served_exactly(smollm2: Bundle) -> None:
    HookedModel(smollm2)  # refuses what it cannot hook without changing a logit


def test_its_chat_template_is_kept(smollm2: Bundle) -> None:
    ids = Conversation(smollm2.tokenizer).user("Hello")
    assert smollm2.tokenizer.decode(ids).endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_a_wrapped_prompt_is_what_it_was_trained_on(smollm2: Bundle) -> None:
    tokenizer = smollm2.tokenizer
    for tokens in (None, 16):
        for prompt in wrapped_prompts(generate("mixed", "evaluation", 12), tokenizer, tokens):
            messages = [{"role": "user", "content": prompt.text}]
            whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
            assert list(prompt.ids) == list(whole["input_ids"])
            assert list(prompt.unwrapped.ids) == tokenizer(prompt.text)["input_ids"]
            assert tokenizer.decode(prompt.wrapper.tail) == "<|im_end|>\n<|im_start|>assistant\n"
