"""Tasks from files: tables with or without a header, JSON, one JSON object a line; plain or gzipped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError
from smd_research.data.reading import json_records, kind_of, table_rows, text_of
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
    kind = kind_of(file)
    if kind not in (".csv", ".tsv", ".json", ".jsonl"):
        raise ConfigError(f"{file}: {kind or 'no suffix'} is unknown; use .csv, .tsv, .json or .jsonl, .gz or not")
    text = text_of(file, "task.train_path and task.evaluation_path")
    if kind in (".json", ".jsonl"):
        for where, record in json_records(file, text):
            if not isinstance(record, dict):
                raise ConfigError(f"{where}: no object; write one with a value for each column")
            yield record
        return
    rows = table_rows(file, text)
    names: Sequence[Column] | None = next(rows, (0, []))[1] if header else None
    for _, row in rows:
        yield dict(zip(names if names is not None else range(len(row)), row, strict=False))
