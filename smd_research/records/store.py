"""One folder a cell: looked up before a run, written once after it, never half."""

import errno
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from smd_research.core.cell import Cell
from smd_research.core.errors import ConfigError, RecordError
from smd_research.records.folders import clear_leftovers, prove_room, replace_folder
from smd_research.records.record import Record, Status, metrics_document
from smd_research.records.schema import FILES, SchemaError, parsed

Rerun = Literal["missing", "failed", "always", "never"]
"""Which cells to run: those without a record, those and the failed, all, or none."""

Action = Literal["run", "reuse", "skip"]

_ROOM = 4 * 2**20
"""Bytes that are written before a run: more than a record has."""

_ATTEMPTS = 100
_PAUSE_S = 0.002
_LARGEST = 2**31
_LONGEST = 500


def decide(existing: Record | None, rerun: Rerun) -> Action:
    """What to do with a cell: run it, reuse its record, or skip it (``never``, and there is no record).

    Raises:
        ConfigError: for an unknown policy.
    """
    if rerun not in ("missing", "failed", "always", "never"):
        raise ConfigError(f"rerun={rerun} is unknown; choose missing, failed, always or never")
    if rerun == "always":
        return "run"
    if existing is None:
        return "skip" if rerun == "never" else "run"
    return "run" if rerun == "failed" and existing.status is Status.FAILED else "reuse"


class Store:
    """The records under a results folder: ``<results_dir>/cells/<readable>-<id>/``.

    Reading verifies the checksums that ``environment.json`` holds of the other files, and that they are as
    :mod:`smd_research.records.schema` says; a record that does not hold together is refused by name, never half used.
    """

    def __init__(self, results_dir: str | os.PathLike[str]) -> None:
        self.results_dir = Path(results_dir)
        self.cells = self.results_dir / "cells"

    def folder(self, cell: Cell) -> Path:
        """Where the record of a cell stands, or would."""
        return self.cells / f"{cell.readable}-{cell.id}"

    def prepare(self) -> None:
        """Make the folder ready before an expensive run: prove that a record fits, clear what a killed run left.

        Raises:
            RecordError: when nothing, or no record, can be written there.
        """
        try:
            prove_room(self.cells, _ROOM)
        except OSError as error:
            raise _unwritable(self.results_dir, error) from error
        clear_leftovers(self.cells)

    def lookup(self, cell: Cell) -> Record | None:
        """The record of a cell, or None when it has none.

        Raises:
            RecordError: when there is one but it is corrupt, or belongs to another cell.
        """
        folder = self.folder(cell)
        if not folder.exists():
            clear_leftovers(self.cells)
            if not folder.exists():
                return None
        record = read(folder)
        if record.cell.digest != cell.digest:
            raise _corrupt(folder, "it holds another cell")
        return record

    def write(self, record: Record) -> Record:
        """Write a record, replacing the cell's earlier one at once; a reader sees the old or the new, never a mixture.

        Returns:
            The record with its path.

        Raises:
            RecordError: when the disk is full or read-only.
        """
        folder = self.folder(record.cell)
        try:
            replace_folder(folder, record_files(record))
        except OSError as error:
            raise _unwritable(folder, error) from error
        return replace(record, path=folder)

    def paths(self) -> list[Path]:
        """The folders of all records, in order of name."""
        if not self.cells.is_dir():
            return []
        return sorted(path for path in self.cells.iterdir() if path.is_dir() and not path.name.startswith("."))

    def filled(self) -> list[Path]:
        """As :meth:`paths`, of a folder that has to hold some.

        Raises:
            RecordError: there are none.
        """
        if not (found := self.paths()):
            words = "run experiments first, or choose another results_dir="
            raise RecordError(f"{self.results_dir} holds no records: {words}")
        return found

    def records(self) -> Iterator[Record]:
        """Every record.

        Raises:
            RecordError: at the first corrupt one; :func:`smd_research.records.readable` goes on with a warning instead.
        """
        return (read(path) for path in self.paths())


def record_files(record: Record) -> dict[str, bytes]:
    """The files of a record, by name, the last of which holds the checksums of the others."""
    files = {
        "config.yaml": yaml.safe_dump(record.cell.to_dict(), sort_keys=False, allow_unicode=True).encode(),
        "metrics.json": _json(metrics_document(record)),
        "items.parquet": _parquet(record.items),
    }
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, "environment.json": _json({**record.environment, "files": checksums})}


def read(folder: Path) -> Record:
    """Read one record; it is as :mod:`smd_research.records.schema` says, or refused.

    Raises:
        RecordError: when the folder is missing or the record corrupt; the message names it and how to mend it.
    """
    for _ in range(_ATTEMPTS):
        before = _identity(folder)
        try:
            return _read_once(folder)
        except RecordError as error:
            # A writer may have replaced the folder between two of its files, or be about to put the new one in place:
            # only a folder that is still the same one is corrupt.
            if before is not None and _identity(folder) == before:
                raise
            failure = error
        time.sleep(_PAUSE_S)
    raise failure


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What tells a folder from the one that replaces it, which may have its inode; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _read_once(folder: Path) -> Record:
    try:
        contents = {name: _content(folder / name) for name in (*FILES, "environment.json")}
    except OSError as error:
        what = f"cannot read {Path(error.filename or folder).name} ({error.strerror})"
        raise _corrupt(folder, what) from error
    try:
        return parsed(folder, contents)
    except Exception as error:  # whatever a damaged file makes a parser do, the record is what is wrong
        what = str(error) if isinstance(error, SchemaError) else f"{type(error).__name__}: {error}"
        raise _corrupt(folder, what) from error


def _content(path: Path) -> bytes:
    """What a file holds; only a true file is waited for."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    if (size := path.stat().st_size) > _LARGEST:
        raise OSError(errno.EFBIG, f"{size / 2**20:.0f} MiB", str(path))
    return path.read_bytes()


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _parquet(items: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _corrupt(folder: Path, what: str) -> RecordError:
    words = printable(f"corrupt record {folder}: {what}")
    return RecordError(f"{words}; delete this folder, or run its cell again with rerun=always")


def printable(text: str) -> str:
    """A text of unknown origin as one line: other characters escaped, cut where it is endless."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _unwritable(path: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot write {path}: {error.strerror or error}; free space or choose another results_dir=")
