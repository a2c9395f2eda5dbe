"""Markup becomes secrets and leaves no trace in what the model reads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_research.core.errors import PromptError
from smd_research.data.markup import parse, unmarked
from smd_research.data.prompts import Document, Span
from smd_research.data.sources import Text
from smd_research.data.tokenise import prompts
from smd_research.models.sources import embedded_tokenizer

MARKED = "Dear <redacted>[name] Anna Kowalski</redacted>, see you on <redacted>4 May 2021</redacted>."
PLAIN = "Dear Anna Kowalski, see you on 4 May 2021."
plain = st.text(st.characters(exclude_characters="<>[]", exclude_categories=["Cs"]), max_size=20)
secret = plain.filter(lambda text: bool(text.strip()))


def test_types_are_optional_and_text_around_stays() -> None:
    text, spans = parse(MARKED)
    assert text == PLAIN
    assert [(text[s.start : s.end], s.type) for s in spans] == [("Anna Kowalski", "name"), ("4 May 2021", "word")]


@given(st.lists(st.tuples(plain, secret, st.sampled_from(["", "[name] ", "[date]"])), max_size=4), plain)
def test_taking_the_tags_out_gives_the_text_and_the_secrets(parts: list[tuple[str, str, str]], tail: str) -> None:
    marked = "".join(f"{before}<redacted>{kind}{inside}</redacted>" for before, inside, kind in parts) + tail
    text, spans = parse(marked)
    # a type may be followed by one space, which then is no part of the secret
    secrets = [inside[1:] if kind == "[date]" and inside[0] == " " else inside for _, inside, kind in parts]
    assert [text[span.start : span.end] for span in spans] == secrets
    assert text == "".join(before + inside for (before, _, _), inside in zip(parts, secrets, strict=True)) + tail


def test_a_prompts_tokens_are_those_of_its_text_without_marks() -> None:
    tokenizer = embedded_tokenizer()
    (marked,) = prompts([unmarked(Document("m", MARKED))], tokenizer)
    (bare,) = prompts([Document("p", PLAIN)], tokenizer)
    assert (marked.ids, marked.text) == (bare.ids, bare.text)
    assert len(marked.spans) == 2
    for span, expected in zip(marked.spans, ("Anna Kowalski", "4 May 2021"), strict=True):
        assert expected in tokenizer.decode(marked.ids[span.start : span.end])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a <redacted>b", "character 3: <redacted> is never closed"),
        ("a <redacted>b <redacted>c</redacted></redacted>", "character 15: <redacted> inside another"),
        ("ab</redacted>", "character 3: </redacted> without"),
        ("a <redacted>[name] </redacted>", "character 3: <redacted> marks nothing"),
    ],
)
def test_broken_marks_are_refused_with_their_place(text: str, match: str) -> None:
    with pytest.raises(PromptError, match=match) as caught:
        unmarked(Document("d7", text))
    assert "'d7'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_may_mark_their_secrets(tmp_path: Path) -> None:
    file = tmp_path / "letters.txt"
    file.write_text(MARKED)
    assert [len(document.spans) for document in Text(str(file)).documents("evaluation", 5, 0)] == [2]
    assert [document.text for document in Text(str(file), markup=False).documents("evaluation", 5, 0)] == [MARKED]


def test_a_document_has_marks_or_spans() -> None:
    assert unmarked(Document("d", PLAIN, (Span(5, 9, "name"),))).spans == (Span(5, 9, "name"),)
    with pytest.raises(PromptError, match="both"):
        unmarked(Document("d", MARKED, (Span(0, 4, "name"),)))
