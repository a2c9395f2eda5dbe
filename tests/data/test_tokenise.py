"""From documents to prompts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import PromptError
from smd_research.data.prompts import Document, Span
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts
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
