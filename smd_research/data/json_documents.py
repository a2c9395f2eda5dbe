"""Documents written as JSON: a text with its secrets, or the messages of a chat."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Document, Span
from smd_research.data.reading import json_records

_SPANS = '[{"start": 0, "end": 4, "type": "name"}]'
_MESSAGES = '[{"role": "user", "content": "..."}]'


def json_documents(file: Path, text: str, name: str) -> list[Document]:
    """The documents of a JSON file: objects with ``text`` and maybe ``spans``, or with ``messages``.

    Args:
        file: for messages.
        text: of the file.
        name: with which ids begin.

    Raises:
        ConfigError: for an entry that is no document; names its place and quotes nothing of it.
    """
    return [_document(where, f"{name}-{where.rpartition(' ')[2]}", entry) for where, entry in json_records(file, text)]


def _document(where: str, identity: str, entry: Any) -> Document:
    if not isinstance(entry, dict) or not ("text" in entry) ^ ("messages" in entry):
        raise ConfigError(f'{where}: no "text"; write {{"text": "..."}} or {{"messages": {_MESSAGES}}}')
    if "messages" in entry:
        if entry.get("spans"):
            raise ConfigError(f'{where}: "spans" count characters of a "text"; mark secrets of messages by tags')
        return Document(identity, _chat(where, entry["messages"]), (), "file")
    if not isinstance(entry["text"], str):
        raise ConfigError(f'{where}: no "text"; write {{"text": "..."}}')
    spans = entry.get("spans") or []
    if not isinstance(spans, list):
        raise ConfigError(f'{where}: "spans" is not a list; write {_SPANS}')
    text = entry["text"]
    return Document(identity, text, tuple(sorted(_span(where, text, span) for span in spans)), "file")


def _span(where: str, text: str, span: object) -> Span:
    if isinstance(span, dict):
        start, end, kind = span.get("start"), span.get("end"), span.get("type")
        if isinstance(start, int) and isinstance(end, int) and isinstance(kind, str) and 0 <= start < end <= len(text):
            return Span(start, end, kind)
    raise ConfigError(
        f'{where}: a span needs whole numbers 0 <= start < end <= {len(text)} (the length of the text) and a "type"'
    )


def _chat(where: str, messages: object) -> str:
    """The turns of a chat as one text, each behind the name of its role, on lines of their own."""
    turns = [_turn(where, one) for one in messages] if isinstance(messages, list) else []
    if not turns:
        raise ConfigError(f'{where}: "messages" is no list of messages; write {_MESSAGES}')
    return "\n".join(turns)


def _turn(where: str, message: object) -> str:
    if isinstance(message, Mapping) and isinstance(message.get("role"), str):
        content = message.get("content")
        if isinstance(content, list) and all(isinstance(one, Mapping) and one.get("type") == "text" for one in content):
            content = "".join(str(one.get("text", "")) for one in content)
        if isinstance(content, str):
            return f"{message['role']}: {content}"
    raise ConfigError(f'{where}: a message needs a "role" and a "content" of text; write {_MESSAGES}')
