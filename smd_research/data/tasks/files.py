"""Tasks from files: tables with or without a header, JSON, one JSON object a line; plain or gzipped."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError
from smd_research.data.tasks.given import Given, Row

Column = str | int
"""The name of a column; its number from 0 in a table without a header."""


@dataclass(frozen=True, kw_only=True)
class Files(Given):
    """Labelled texts of one file, or of one to tune on and one to evaluate.

    ``.csv`` is quoted, ``.tsv`` is not; ``.json`` is a list of objects, or an object of them by row number; ``.jsonl``
    one object a line. ``.gz`` may follow.

    Attributes:
        train_path: the file to tune on.
        evaluation_path: the file to evaluate on; None: a quarter of the other.
        text: column of the text.
        pair: column of the second text, of a task on pairs.
        label: column of the class.
        classes: the classes as they stand in the files, in order; None: those of the training file, sorted.
        header: whether a table's first line names its columns.
    """

    train_path: str
    evaluation_path: str | None
    text: Column
    pair: Column | None
    label: Column
    classes: Sequence[str | int] | None
    header: bool

    @property
    def _named(self) -> Sequence[str] | None:
        return None if self.classes is None else [str(name) for name in self.classes]

    def _training_rows(self) -> Iterable[Row]:
        return self._rows(self.train_path)

    def _evaluation_rows(self) -> Iterable[Row] | None:
        return None if self.evaluation_path is None else self._rows(self.evaluation_path)

    def _rows(self, path: str) -> Iterator[Row]:
        file = Path(path).expanduser()
        for number, record in enumerate(_records(file, self.header), start=1):
            where = f"{file.name}, row {number}"
            pair = None if self.pair is None else _value(record, self.pair, where)
            yield Row(where, _value(record, self.text, where), pair or None, _value(record, self.label, where))


def _value(record: Mapping[Column, Any], column: Column, where: str) -> str:
    """A column as text, empty where it holds nothing.

    Raises:
        ConfigError: where the row has no such column; names those it has.
    """
    if column not in record:
        raise ConfigError(f"{where}: no column {column!r}; it has {', '.join(map(str, record))}")
    value = record[column]
    return "" if value is None else str(value).strip()


def _records(file: Path, header: bool) -> Iterator[Mapping[Column, Any]]:
    """The rows of a file by column.

    Raises:
        ConfigError: for a file that is missing or cannot be read, with its name.
    """
    kind = Path(file.name.removesuffix(".gz")).suffix
    text = _text(file)
    try:
        if kind in (".csv", ".tsv"):
            yield from _table(text, kind == ".csv", header)
        elif kind == ".json":
            found = json.loads(text)
            yield from found.values() if isinstance(found, dict) else found
        elif kind == ".jsonl":
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
        else:
            raise ConfigError(f"{file}: {kind or 'no suffix'} is unknown; use .csv, .tsv, .json or .jsonl, .gz or not")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not JSON ({error.msg} in line {error.lineno}); mend the file") from None
    except csv.Error as error:
        raise ConfigError(f"{file}: {error}; quote the field, or save as .tsv, which is unquoted") from None


def _table(text: str, quoted: bool, header: bool) -> Iterator[Mapping[Column, Any]]:
    csv.field_size_limit(sys.maxsize)
    if quoted:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    else:
        lines = (line.rstrip("\r") for line in text.split("\n"))
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    filled = (row for row in rows if row)
    names: Sequence[Column] | None = next(filled, []) if header else None
    for row in filled:
        yield dict(zip(names if names is not None else range(len(row)), row, strict=False))


def _text(file: Path) -> str:
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"task file {file} does not exist; set task.train_path and task.evaluation_path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except (OSError, EOFError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); check its permissions and that it is whole") from None
