"""From documents to prompts."""

import pytest
from chatting import tokenizer_with
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError, PromptError
from smd_research.data.prompts import Document, Span
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts, wrapped_prompts
from smd_research.training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer((document.text for document in generate("mixed", "train", 300)), 1024, context=128)


def test_whole_documents_keep_every_secret(tokenizer: PreTrainedTokenizerBase) -> None:
    for document in generate("personal", "evaluation", 40):
        try:
            (prompt,) = prompts([document], tokenizer)
        except PromptError:
            continue  # longer than this small context
        assert prompt.ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(prompt.ids[1:]) == document.text == prompt.text
        assert [span.type for span in prompt.spans] == [span.type for span in document.spans]
        for span, marked in zip(prompt.spans, document.spans, strict=True):
            value = document.text[marked.start : marked.end]
            assert value in tokenizer.decode(prompt.ids[span.start : span.end])


def test_cut_prompts_and_their_continuation(tokenizer: PreTrainedTokenizerBase) -> None:
    document = generate("clinical", "evaluation", 1)[0]
    (prompt,) = prompts([document], tokenizer, prompt_tokens=16, continuation_tokens=32)
    assert len(prompt.ids) == 16
    assert len(prompt.continuation) == 32
    assert document.text.startswith(prompt.text)
    assert document.text.startswith(tokenizer.decode([*prompt.ids[1:], *prompt.continuation]))
    assert all(span.start < span.end <= 16 for span in prompt.spans)


def test_a_short_document_is_not_padded(tokenizer: PreTrainedTokenizerBase) -> None:
    (prompt,) = prompts([Document("a", "Hello Ann", (Span(6, 9, "name"),))], tokenizer, 64, 8)
    assert tokenizer.decode(prompt.ids[1:]) == "Hello Ann"
    assert prompt.continuation == ()


def test_a_tokenizer_without_bos_gets_none() -> None:
    from transformers import AutoTokenizer

    from smd_research.models.sources import EMBEDDED_DIR

    plain = AutoTokenizer.from_pretrained(EMBEDDED_DIR)
    plain.backend_tokenizer.post_processor = None  # type: ignore[assignment]
    (prompt,) = prompts([Document("a", "Hello Ann")], plain)
    assert prompt.ids[0] != plain.bos_token_id


@pytest.mark.parametrize("text", ["", "  \n "])
def test_empty_text_is_refused(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    with pytest.raises(PromptError, match="document 'a' is empty"):
        prompts([Document("a", text)], tokenizer)


def test_too_long_is_refused_unless_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    long = Document("a", "word " * 300)
    with pytest.raises(PromptError, match="the model's context is 128; cut it"):
        prompts([long], tokenizer)
    with pytest.raises(PromptError, match="has 129 tokens"):
        prompts([long], tokenizer, 129)
    (prompt,) = prompts([long], tokenizer, 100, 100)
    assert len(prompt.ids) + len(prompt.continuation) == 128
    with pytest.raises(PromptError, match="at least one token"):
        prompts([long], tokenizer, 0)


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip())), cut=st.integers(1, 30))
def test_any_text(tokenizer: PreTrainedTokenizerBase, text: str, cut: int) -> None:
    (whole,) = prompts([Document("a", text, (Span(0, len(text), "all"),))], tokenizer)
    assert tokenizer.decode(whole.ids[1:]) == text == whole.text
    assert (whole.spans[0].start, whole.spans[0].end) == (1, len(whole.ids))
    (prompt,) = prompts([Document("a", text)], tokenizer, cut)
    assert prompt.ids == whole.ids[:cut]
    assert text.startswith(prompt.text)


CHATTING = tokenizer_with()
RUN_TOGETHER = tokenizer_with("{% for m in messages %}He said{{ m.content }}ing and<eos>{% endfor %}")


def as_expected(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    messages = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])


def test_a_wrapped_document_is_what_the_model_expects_and_its_own_tokens_are_the_users() -> None:
    documents = generate("personal", "evaluation", 20)
    alone = prompts(documents, CHATTING)
    for document, prompt, bare in zip(documents, wrapped_prompts(documents, CHATTING), alone, strict=True):
        assert list(prompt.ids) == as_expected(CHATTING, document.text)
        assert prompt.text == document.text
        assert prompt.unwrapped.ids == bare.ids[1:], "but for the begin-of-sequence token, which the template writes"
        assert [(s.start + 1, s.end + 1, s.type) for s in prompt.unwrapped.spans] == [
            (s.start, s.end, s.type) for s in bare.spans
        ]
        assert CHATTING.decode(prompt.wrapper.head) == "<bos>[system] Be kind.\n[user]\n"
        assert CHATTING.decode(prompt.wrapper.tail) == "<eos>\n[assistant]\n"


def test_a_cut_counts_and_takes_the_users_tokens_alone() -> None:
    documents = generate("clinical", "evaluation", 8)
    for prompt, whole in zip(
        wrapped_prompts(documents, CHATTING, 12), wrapped_prompts(documents, CHATTING), strict=True
    ):
        assert len(prompt.unwrapped.ids) == 12
        assert prompt.wrapper == whole.wrapper
        assert prompt.unwrapped.ids == whole.unwrapped.ids[:12]
        assert whole.text.startswith(prompt.text)
        assert not prompt.continuation
        assert all(span.end <= prompt.place.stop for span in prompt.spans)


def test_white_space_at_the_ends_is_no_part_of_a_message() -> None:
    document = Document("d", "  Ann Lee called. \n", (Span(2, 9, "name"), Span(0, 1, "space")))
    (prompt,), (plain,) = (wrapped_prompts([d], CHATTING) for d in (document, Document("d", "Ann Lee called.")))
    assert (prompt.text, prompt.ids) == ("Ann Lee called.", plain.ids)
    (span,) = prompt.spans
    assert CHATTING.decode(prompt.ids[span.start : span.end]).strip() == "Ann Lee"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40).filter(str.strip), st.integers(1, 6))
@pytest.mark.parametrize("tokenizer", [CHATTING, RUN_TOGETHER])
def test_no_character_of_a_text_is_public(tokenizer: PreTrainedTokenizerBase, text: str, cut: int) -> None:
    (prompt,) = wrapped_prompts([Document("d", text)], tokenizer)
    assert list(prompt.ids) == as_expected(tokenizer, prompt.text)
    own = prompt.unwrapped.ids
    assert prompt.text in tokenizer.decode(own)
    (short,) = wrapped_prompts([Document("d", text)], tokenizer, cut)
    assert short.unwrapped.ids == own[:cut]


def test_a_token_on_both_sides_of_a_seam_is_the_users() -> None:
    (prompt,) = wrapped_prompts([Document("d", "th")], RUN_TOGETHER)
    assert len(prompt.unwrapped.ids) == 1
    assert RUN_TOGETHER.decode(prompt.unwrapped.ids) == "thing"


def test_nothing_is_wrapped_without_a_template(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="has no chat template"):
        wrapped_prompts([Document("d", "text")], tokenizer)
    with pytest.raises(PromptError, match="is empty"):
        wrapped_prompts([Document("d", " \n")], CHATTING)
