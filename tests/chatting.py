"""A small model to chat with: a bundle whose tokenizer has a chat template."""

import copy
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from smd_research.models import sources
from smd_research.models.bundle import Bundle

TEMPLATE = (
    "{{ bos_token }}[system] Be kind.\n{% for m in messages %}[{{ m.role }}]\n{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def tokenizer_with(template: str = TEMPLATE) -> PreTrainedTokenizerBase:
    """The shipped tokenizer with a chat template."""
    tokenizer = copy.deepcopy(sources.embedded_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def chat_model(family: str = "llama", template: str = TEMPLATE) -> Bundle:
    """Random weights of a family, to chat with."""
    return Bundle.of(f"chat-{family}", sources.random(family).model, tokenizer_with(template))


def saved(bundle: Bundle, folder: Path) -> str:
    """The folder that a bundle was written to, for ``model=local``."""
    bundle.model.save_pretrained(str(folder))
    bundle.tokenizer.save_pretrained(str(folder))
    return str(folder)
