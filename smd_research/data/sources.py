"""Where documents come from: the generator, files, the hub.

Every source has an *evaluation* part, whose documents become prompts, and a *train* part, the public text of the same
kind that an attacker may learn from. The two never share a document: the generator splits by template and value, files
and hub data by a stable hash of the text (a quarter is the evaluation part), so an attacker's prior never holds a
secret text itself. Where ``markup`` is on, files and hub data may mark secrets in the text (``data.markup``).
"""

import csv
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.data import synthetic
from smd_research.data.markup import unmarked
from smd_research.data.pinned import check_pinned
from smd_research.data.prompts import Document, Span

EVALUATION, TRAIN = "evaluation", "train"
_EVALUATION_SHARE = 25  # per cent of a file's documents


class DataSource(Protocol):
    """Anything that yields documents: a configuration names a class of this form in ``conf/data``."""

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """At most ``n`` documents of ``split`` (``train`` or ``evaluation``), chosen and ordered by ``seed``."""
        ...


@dataclass(frozen=True)
class Synthetic:
    """The generator's documents of one register, or of the three in turn (``mixed``)."""

    register: str = synthetic.MIXED

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """Exactly ``n`` documents; the evaluation sets are checked against their pinned checksums first.

        Raises:
            ConfigError: if the register or split is unknown, or the installed Faker gives other evaluation sets.
        """
        if split == EVALUATION:
            check_pinned(self.register)
        return synthetic.generate(self.register, split, n, seed)


@dataclass(frozen=True)
class Jsonl:
    """One JSON object a line: ``text``, and optionally ``spans`` with ``start``, ``end`` (characters) and ``type``."""

    path: str
    markup: bool = True

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """Documents of the file's part.

        Raises:
            ConfigError: if the file is missing or a line is not a document; the message names the line.
        """
        file = _existing(self.path)
        lines = enumerate(_read(file).split("\n"), start=1)
        found = [_json_document(file, number, line) for number, line in lines if line.strip()]
        return select(_read_marks(found, self.markup), split, n, seed, str(file))


@dataclass(frozen=True)
class Csv:
    """A CSV file with a header: one document a row, its text in ``column``."""

    path: str
    column: str = "text"
    markup: bool = True

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """Documents of the file's part.

        Raises:
            ConfigError: if the file or the column is missing, or a row has no text.
        """
        file = _existing(self.path)
        return select(_read_marks(list(self._rows(file)), self.markup), split, n, seed, str(file))

    def _rows(self, file: Path) -> Iterator[Document]:
        csv.field_size_limit(sys.maxsize)
        rows = csv.DictReader(_read(file).splitlines(keepends=True), strict=True)
        if self.column not in (rows.fieldnames or ()):
            raise ConfigError(
                f"{file}: no column {self.column!r}; set data.column to one of {', '.join(rows.fieldnames or ())}"
            )
        try:
            for row in rows:
                yield _document(file, rows.line_num, row[self.column] or "", ())
        except csv.Error as error:
            raise ConfigError(f"{file}, line {rows.line_num}: {error}; quote the field, or remove the line") from None


@dataclass(frozen=True)
class Text:
    """A text file whose documents are separated by blank lines."""

    path: str
    markup: bool = True

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """Documents of the file's part.

        Raises:
            ConfigError: if the file is missing or holds no text.
        """
        file = _existing(self.path)
        found: list[Document] = []
        block: list[str] = []
        for number, line in enumerate([*_read(file).split("\n"), ""], start=1):
            if line.strip():
                block.append(line.rstrip("\r"))
            elif block:
                found.append(_document(file, number - len(block), "\n".join(block), ()))
                block = []
        return select(_read_marks(found, self.markup), split, n, seed, str(file))


@dataclass(frozen=True)
class HubTexts:
    """A data set of the Hugging Face hub, or of a folder that ``datasets`` reads."""

    name: str
    config: str | None = None
    split: str = "test"
    column: str = "text"
    markup: bool = True

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """Documents of the data set's part; rows without text are left out, as many hub sets separate by such rows.

        Raises:
            ConfigError: if the data set cannot be loaded or lacks the column.
        """
        rows = self._load()
        if self.column not in rows.column_names:
            raise ConfigError(
                f"{self.name}: no column {self.column!r}; set data.column to one of {', '.join(rows.column_names)}"
            )
        texts = [str(text).strip() for text in rows[self.column] if text and str(text).strip()]
        found = [Document(f"{self.name}-{number}", text, (), "hub") for number, text in enumerate(texts)]
        return select(_read_marks(found, self.markup), split, n, seed, self.name)

    def _load(self) -> Any:
        # Imported where it is used: it takes a second, and no other source needs it.
        from datasets import load_dataset

        try:
            return load_dataset(self.name, self.config, split=self.split)
        except Exception as error:  # the hub's errors share no base class
            reason = str(error).split("\n", 1)[0]
            raise ConfigError(
                f"data=hub: cannot load {self.name!r} ({reason}); check data.name, data.config and data.split, "
                "or use data=jsonl data.path=FILE without a network"
            ) from error


def _read_marks(documents: Sequence[Document], markup: bool) -> list[Document]:
    """Documents whose ``<redacted>`` tags have become secrets, where the source reads them.

    Raises:
        PromptError: for a broken tag.
    """
    return [unmarked(document) for document in documents] if markup else list(documents)


def select(documents: Sequence[Document], split: str, n: int, seed: int, where: str) -> list[Document]:
    """At most ``n`` documents of a split, in an order that ``seed`` decides.

    A document belongs to the evaluation part when a stable hash of its text says so (a quarter do), whatever else the
    file holds; equal texts are one document. Where that leaves the evaluation part of a small file empty, all of the
    file is evaluated and the train part is empty.

    Raises:
        ConfigError: for an unknown split, or when there is no document at all.
    """
    if split not in (TRAIN, EVALUATION):
        raise ConfigError(f"unknown split {split!r}; choose {TRAIN} or {EVALUATION}")
    if not documents:
        raise ConfigError(f"{where}: no documents in it; give at least one text")
    distinct = list({document.text: document for document in documents}.values())
    evaluated = [document for document in distinct if zlib.crc32(document.text.encode()) % 100 < _EVALUATION_SHARE]
    if not evaluated:
        evaluated = distinct
    texts = {document.text for document in evaluated}
    part = evaluated if split == EVALUATION else [document for document in distinct if document.text not in texts]
    order = generator(seed, "data", split).permutation(len(part))
    return [part[index] for index in order[:n]]


def _existing(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"data file {file} does not exist; set data.path to a file")
    return file


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None


def _json_document(file: Path, number: int, line: str) -> Document:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        # The message of the parser quotes nothing of the line, which may hold a secret.
        reason = f"{error.msg} at character {error.pos + 1}"
        raise ConfigError(f"{file}, line {number}: not JSON ({reason}); write one object a line") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise ConfigError(f'{file}, line {number}: no "text"; write {{"text": "..."}}')
    text = entry["text"]
    spans = entry.get("spans") or []
    if not isinstance(spans, list):
        example = '[{"start": 0, "end": 4, "type": "name"}]'
        raise ConfigError(f'{file}, line {number}: "spans" is not a list; write {example}')
    return _document(file, number, text, tuple(sorted(_json_span(file, number, text, span) for span in spans)))


def _json_span(file: Path, number: int, text: str, span: object) -> Span:
    if isinstance(span, dict):
        start, end, kind = span.get("start"), span.get("end"), span.get("type")
        if isinstance(start, int) and isinstance(end, int) and isinstance(kind, str) and 0 <= start < end <= len(text):
            return Span(start, end, kind)
    raise ConfigError(
        f"{file}, line {number}: a span needs whole numbers 0 <= start < end <= {len(text)} (the length of the text) "
        'and a "type"'
    )


def _document(file: Path, number: int, text: str, spans: tuple[Span, ...]) -> Document:
    if not text.strip():
        raise ConfigError(f"{file}, line {number}: the text is empty; give a text or remove the line")
    return Document(f"{file.stem}-{number}", text, spans, "file")
