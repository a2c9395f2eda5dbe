"""One folder a cell: looked up before a run, written once after it, never half."""

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
from smd_research.records.folders import clear_leftovers, replace_folder
from smd_research.records.record import Record, Status, metrics_document, parse_metrics

Rerun = Literal["missing", "failed", "always", "never"]
"""Which cells to run: those without a record, those and the failed, all, or none."""

Action = Literal["run", "reuse", "skip"]

_ATTEMPTS = 100
_PAUSE_S = 0.002


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

    Reading verifies the checksums that ``environment.json`` holds of the other files; a record that does not hold
    together is refused by name, never half used.
    """

    def __init__(self, results_dir: str | os.PathLike[str]) -> None:
        self.results_dir = Path(results_dir)
        self.cells = self.results_dir / "cells"

    def folder(self, cell: Cell) -> Path:
        """Where the record of a cell stands, or would."""
        return self.cells / f"{cell.readable}-{cell.id}"

    def prepare(self) -> None:
        """Make the folder ready before an expensive run: create it, prove it writable, clear what a killed run left.

        Raises:
            RecordError: when nothing can be written there.
        """
        probe = self.cells / f".probe-{os.getpid()}"
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
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
        files = {
            "config.yaml": yaml.safe_dump(record.cell.to_dict(), sort_keys=False, allow_unicode=True).encode(),
            "metrics.json": _json(metrics_document(record)),
            "items.parquet": _parquet(record.items),
        }
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files["environment.json"] = _json({**record.environment, "files": checksums})
        try:
            replace_folder(folder, files)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return replace(record, path=folder)

    def paths(self) -> list[Path]:
        """The folders of all records, in order of name."""
        if not self.cells.is_dir():
            return []
        return sorted(path for path in self.cells.iterdir() if path.is_dir() and not path.name.startswith("."))

    def records(self) -> Iterator[Record]:
        """Every record.

        Raises:
            RecordError: at the first corrupt one; :func:`smd_research.records.load` goes on with a warning instead.
        """
        return (read(path) for path in self.paths())


def read(folder: Path, items: bool = True) -> Record:
    """Read one record, its checksums verified.

    Args:
        folder: the record's.
        items: whether to parse the per-prompt results too; without them the record's are empty.

    Raises:
        RecordError: when the folder is missing or the record corrupt; the message names it and how to mend it.
    """
    for _ in range(_ATTEMPTS):
        before = _identity(folder)
        try:
            return _read_once(folder, items)
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


def _read_once(folder: Path, with_items: bool) -> Record:
    try:
        contents = {
            name: (folder / name).read_bytes() for name in ("metrics.json", "items.parquet", "environment.json")
        }
        contents["config.yaml"] = (folder / "config.yaml").read_bytes()
    except OSError as error:
        raise _corrupt(folder, f"cannot read {Path(error.filename or folder).name} ({error.strerror})") from error
    try:
        environment = json.loads(contents["environment.json"])
        checksums = environment.pop("files", {})
        status, reason, cell, metrics = parse_metrics(json.loads(contents["metrics.json"]))
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise _corrupt(folder, f"metrics.json or environment.json: {type(error).__name__}: {error}") from error
    for name, checksum in checksums.items():
        if hashlib.sha256(contents.get(name, b"")).hexdigest() != checksum:
            raise _corrupt(folder, f"{name} does not match its checksum")
    try:
        # One thread: Arrow's pool, once it has read from a Python object, may hang or abort when the interpreter ends.
        buffer = io.BytesIO(contents["items.parquet"])
        items = pd.read_parquet(buffer, use_threads=False) if with_items else pd.DataFrame()
    except (ValueError, OSError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise _corrupt(folder, "items.parquet is not a Parquet file") from error
    return Record(status, cell, reason, metrics, items, environment, folder)


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _parquet(items: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _corrupt(folder: Path, what: str) -> RecordError:
    return RecordError(f"corrupt record {folder}: {what}; delete this folder, or run its cell again with rerun=always")


def _unwritable(path: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot write {path}: {error.strerror or error}; free space or choose another results_dir=")
