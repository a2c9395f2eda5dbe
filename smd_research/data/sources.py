"""Where documents come from: the generator, files, the hub.

Every source has an *evaluation* part, whose documents become prompts, and a *train* part, the public text of the same
kind that an attacker may learn from. The two never share a document: the generator splits by template and value, files
and hub data by a stable hash of the text (``prompt_share`` of them are the evaluation part), so an attacker's prior
never holds a secret text itself. Where ``markup`` is on, files and hub data may mark secrets in the text
(``data.markup``).
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.data import synthetic
from smd_research.data.json_documents import json_documents
from smd_research.data.markup import unmarked
from smd_research.data.pinned import check_pinned
from smd_research.data.prompts import Document
from smd_research.data.reading import kind_of, stem_of, table_rows, text_of

EVALUATION, TRAIN = "evaluation", "train"
PROMPT_SHARE = 0.25
"""Share of one's own documents that become prompts, unless the configuration says otherwise."""


class DataSource(Protocol):
    """Anything that yields documents: a configuration names a class of this form in ``conf/data``."""

    @property
    def chat(self) -> bool:
        """Whether a prompt is put into the model's chat template, as the message of a user."""
        ...

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """At most ``n`` documents of ``split`` (``train`` or ``evaluation``), chosen and ordered by ``seed``."""
        ...


@dataclass(frozen=True)
class Division:
    """Documents of one's own in two parts that share none; equal texts are one document.

    Attributes:
        evaluation: those that become prompts.
        train: the rest: public text of the same kind, which the attacker has.
    """

    evaluation: tuple[Document, ...]
    train: tuple[Document, ...]

    @classmethod
    def of(cls, documents: Sequence[Document], share: float, where: str) -> "Division":
        """Divide documents by a stable hash of their texts, whatever else there is.

        Where that leaves the evaluation part of a few documents empty, all are evaluated and the train part is empty.

        Args:
            documents: all there are.
            share: of them that become prompts, counted in whole per cent.
            where: they are from, for messages.

        Raises:
            ConfigError: when there is no document, one holds half a character, or the share is none.
        """
        if not 0.01 <= share <= 1:
            raise ConfigError(f"data.prompt_share={share:g} is out of range: it lies between 0.01 and 1")
        if not documents:
            raise ConfigError(f"{where}: no documents in it; give at least one text")
        distinct = {document.text: document for document in documents}
        chosen = {text for text, one in distinct.items() if _hash(one, where) % 100 < round(100 * share)}
        chosen = chosen or set(distinct)
        evaluation, train = (
            tuple(one for text, one in distinct.items() if (text in chosen) is wanted) for wanted in (True, False)
        )
        return cls(evaluation, train)

    def part(self, split: str, n: int, seed: int) -> list[Document]:
        """At most ``n`` documents of a part, in an order that ``seed`` decides.

        Raises:
            ConfigError: for an unknown part.
        """
        if split not in (TRAIN, EVALUATION):
            raise ConfigError(f"unknown split {split!r}; choose {TRAIN} or {EVALUATION}")
        part = self.evaluation if split == EVALUATION else self.train
        order = generator(seed, "data", split).permutation(len(part))
        return [part[index] for index in order[:n]]


def _hash(document: Document, where: str) -> int:
    try:
        return zlib.crc32(document.text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}, document {document.id!r}: character {error.start + 1} is half a character (a lone surrogate, "
            "such as \\ud83d alone): mend the text"
        ) from None


class OwnDocuments(ABC):
    """A source of documents that are no generator's: a share of them are prompts, the rest is public."""

    markup: bool
    prompt_share: float
    chat: bool

    @property
    @abstractmethod
    def where(self) -> str:
        """Where they are from, as messages call it."""

    @abstractmethod
    def read(self) -> list[Document]:
        """All of them, tags and all.

        Raises:
            ConfigError: for what cannot be read; names the place in one line and quotes nothing of it.
        """

    def division(self) -> Division:
        """All of them, in their two parts.

        Raises:
            ConfigError: for what cannot be read or divided.
            PromptError: for a broken tag.
        """
        found = self.read()
        for one in found:
            if not one.text.strip():
                raise ConfigError(f"{self.where}, document {one.id!r}: the text is empty; give a text or remove it")
        return Division.of([unmarked(one) for one in found] if self.markup else found, self.prompt_share, self.where)

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """At most ``n`` documents of a part.

        Raises:
            ConfigError: for what cannot be read or divided, or an unknown part.
            PromptError: for a broken tag.
        """
        return self.division().part(split, n, seed)


@dataclass(frozen=True)
class Synthetic:
    """The generator's documents of one register, or of the three in turn (``mixed``)."""

    register: str = synthetic.MIXED
    chat: bool = False

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """Exactly ``n`` documents; the evaluation sets are checked against their pinned checksums first.

        Raises:
            ConfigError: if the register or split is unknown, or the installed Faker gives other evaluation sets.
        """
        if split == EVALUATION:
            check_pinned(self.register)
        return synthetic.generate(self.register, split, n, seed)


@dataclass(frozen=True)
class OwnFile(OwnDocuments):
    """Documents of a file or a folder at ``path``."""

    path: str
    markup: bool = True
    prompt_share: float = PROMPT_SHARE
    chat: bool = False

    @property
    def where(self) -> str:
        return str(Path(self.path).expanduser())


@dataclass(frozen=True)
class Jsonl(OwnFile):
    """JSON, an object a line or an array of objects: ``text`` and maybe ``spans`` with ``start``, ``end`` and ``type``.

    ``start`` and ``end`` count characters. In place of a text there may be the ``messages`` of a chat, each with its
    ``role`` and ``content``; a line of the document for each.
    """

    def read(self) -> list[Document]:
        file = Path(self.where)
        return json_documents(file, text_of(file, "data.path"), stem_of(file))


@dataclass(frozen=True)
class Csv(OwnFile):
    """A table with a header, ``.tsv`` or ``.csv``: one document a row, its text in ``column``."""

    column: str = "text"

    def read(self) -> list[Document]:
        file = Path(self.where)
        rows = table_rows(file, text_of(file, "data.path"))
        _, header = next(rows, (0, ()))
        if self.column not in header:
            raise ConfigError(f"{file}: no column {self.column!r}; set data.column to one of {', '.join(header)}")
        at, found = header.index(self.column), []
        for line, row in rows:
            if len(row) != len(header):
                raise ConfigError(
                    f"{file}, line {line}: {len(row)} fields under a header of {len(header)}; quote a field that holds "
                    "a comma"
                )
            found.append(Document(f"{stem_of(file)}-{line}", row[at], (), "file"))
        return found


@dataclass(frozen=True)
class Text(OwnFile):
    """A text file whose documents are separated by blank lines, or a folder with a document in each ``.txt`` file."""

    def read(self) -> list[Document]:
        place = Path(self.where)
        if not place.is_dir():
            return _blocks(place)
        files = sorted(file for file in place.iterdir() if file.is_file() and kind_of(file) == ".txt")
        if not files:
            raise ConfigError(f"{place}: no .txt file lies in this folder itself; set data.path to one that has some")
        texts = ((file, text_of(file, "data.path").strip().replace("\r\n", "\n")) for file in files)
        return [Document(f"{place.name}-{stem_of(file)}", text, (), "file") for file, text in texts]


def _blocks(file: Path) -> list[Document]:
    """The blocks of lines of a file, each with the number of its first line."""
    found: list[Document] = []
    block: list[str] = []
    for number, line in enumerate([*text_of(file, "data.path").split("\n"), ""], start=1):
        if line.strip():
            block.append(line.rstrip("\r"))
        elif block:
            found.append(Document(f"{stem_of(file)}-{number - len(block)}", "\n".join(block), (), "file"))
            block = []
    return found


@dataclass(frozen=True)
class HubTexts(OwnDocuments):
    """A data set of the Hugging Face hub, or of a folder that ``datasets`` reads.

    Rows without text are left out, as many hub sets separate by such rows.
    """

    name: str
    config: str | None = None
    split: str = "test"
    column: str = "text"
    markup: bool = True
    prompt_share: float = PROMPT_SHARE
    chat: bool = False

    @property
    def where(self) -> str:
        return self.name

    def read(self) -> list[Document]:
        rows = self._load()
        if self.column not in rows.column_names:
            raise ConfigError(
                f"{self.name}: no column {self.column!r}; set data.column to one of {', '.join(rows.column_names)}"
            )
        texts = [str(text).strip() for text in rows[self.column] if text and str(text).strip()]
        return [Document(f"{self.name}-{number}", text, (), "hub") for number, text in enumerate(texts)]

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
