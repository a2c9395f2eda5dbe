"""Secrets marked in the text itself: ``<redacted>[TYPE] span</redacted>``, as in the proof of concept of 2409.19134.

The marks are taken out before anything is tokenised, so that a prompt's token ids are those of its plain text. What
stands between the tags, but for the type and one space after it, is the secret, and the text around it stays as it is.
"""

import re
from dataclasses import replace

from smd_research.core.errors import PromptError
from smd_research.data.prompts import Document, Span

OPEN, CLOSE = "<redacted>", "</redacted>"
DEFAULT_TYPE = "word"
_TAG = re.compile(f"{re.escape(OPEN)}|{re.escape(CLOSE)}")
_TYPE = re.compile(r"\[([^\[\]<>\n]+)\] ?")


def parse(text: str) -> tuple[str, tuple[Span, ...]]:
    """Plain text and its marked secrets.

    Args:
        text: with tags; one without any is returned as it is.

    Raises:
        PromptError: for a tag that is nested, never closed, never opened, or holds nothing; names the character.
    """
    parts: list[str] = []
    spans: list[Span] = []
    length, last, opened = 0, 0, -1
    for tag in _TAG.finditer(text):
        inside = text[last : tag.start()]
        if tag.group() == OPEN:
            if opened >= 0:
                raise _error(tag.start(), f"{OPEN} inside another, which begins at character {opened + 1}")
            opened = tag.start()
        else:
            if opened < 0:
                raise _error(tag.start(), f"{CLOSE} without {OPEN}")
            kind = _TYPE.match(inside)
            inside = inside[kind.end() :] if kind else inside
            if not inside.strip():
                raise _error(opened, f"{OPEN} marks nothing")
            spans.append(Span(length, length + len(inside), kind.group(1).strip() if kind else DEFAULT_TYPE))
            opened = -1
        parts.append(inside)
        length += len(inside)
        last = tag.end()
    if opened >= 0:
        raise _error(opened, f"{OPEN} is never closed: add {CLOSE}")
    return "".join(parts) + text[last:], tuple(spans)


def unmarked(document: Document) -> Document:
    """A document without its tags; what they marked joins the spans of a document that has none of its own.

    Raises:
        PromptError: as ``parse``, and for a document with tags as well as spans; names the document.
    """
    try:
        text, spans = parse(document.text)
    except PromptError as error:
        raise PromptError(f"document {document.id!r}, {error} (data.markup=false reads tags as text)") from None
    if spans and document.spans:
        raise PromptError(f"document {document.id!r} has both spans and {OPEN} tags: keep one of the two")
    return replace(document, text=text, spans=spans) if spans else document


def _error(position: int, what: str) -> PromptError:
    return PromptError(f"character {position + 1}: {what}")
