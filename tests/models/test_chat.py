"""A chat's turns add up to the whole chat's ids."""

import pytest
from chatting import tokenizer_with
from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError, PromptError
from smd_research.models import sources
from smd_research.models.chat import Conversation, Envelope

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return sources.embedded_tokenizer()


def test_turns_add_what_the_template_adds(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = Conversation(tokenizer, template=TEMPLATE, system="Be kind.")
    first = chat.user("My name is Ada.")
    assert tokenizer.decode(first) == "[system] Be kind.\n[user] My name is Ada.\n[assistant]"
    answer = tuple(tokenizer("Hello Ada.", add_special_tokens=False)["input_ids"])
    assert chat.assistant(answer) == "Hello Ada."
    second = chat.user("And again?")
    assert tokenizer.decode(second) == "<eos>\n[user] And again?\n[assistant]"
    assert chat.turns == 2


def test_an_end_token_the_model_drew_is_not_written_twice(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = Conversation(tokenizer, template=TEMPLATE)
    chat.user("Hi")
    end = tokenizer("<eos>", add_special_tokens=False)["input_ids"]
    chat.assistant([9, end[0]])
    plain = Conversation(tokenizer, template=TEMPLATE)
    plain.user("Hi")
    plain.assistant([9, 10])
    assert chat.user("More") == plain.user("More")[1:]


def test_the_system_prompt_is_the_public_part(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = Conversation(tokenizer, template=TEMPLATE, system="Be kind.")
    public = chat.public_tokens
    ids = chat.user("Ada")
    assert tokenizer.decode(ids[:public]).startswith("[system] Be kind.\n[user]")
    assert Conversation(tokenizer, template=TEMPLATE).public_tokens == 0


def test_what_cannot_be_continued_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        Conversation(tokenizer)
    chat = Conversation(tokenizer, template="{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    chat.user("a")
    chat.assistant([9])
    with pytest.raises(ConfigError, match="turn by turn"):
        chat.user("b")


def test_an_envelope_is_what_a_first_turn_has_around_its_message() -> None:
    tokenizer = tokenizer_with(TEMPLATE)
    envelope = Envelope.of(tokenizer)
    assert (envelope.before, envelope.behind) == ("[user] ", "\n[assistant]")
    assert tokenizer.decode(Conversation(tokenizer).user("Ada?")) == envelope.around("Ada?")


def test_an_envelope_needs_a_template_that_leaves_a_message_alone() -> None:
    with pytest.raises(ConfigError, match="has no chat template: leave"):
        Envelope.of(sources.embedded_tokenizer())
    for template in ("{{ messages[0].content | upper }}", "{{ messages[0].content }} {{ messages[0].content }}"):
        with pytest.raises(ConfigError, match="once and as it is"):
            Envelope.of(tokenizer_with(template))
    with pytest.raises(PromptError, match="as it is") as caught:
        Envelope.of(tokenizer_with("{{ messages[0].content | replace('secret', '-') }}")).around("a secret")
    assert "a secret" not in str(caught.value)
