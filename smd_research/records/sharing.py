"""A record as it is shared: folders of whoever made it are taken out of its command, its options and its reason."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smd_research.core.cell import COMPONENTS, OPTIONAL, Cell
from smd_research.core.errors import RecordError
from smd_research.core.quoting import without_paths
from smd_research.records.packing import Row
from smd_research.records.record import Record
from smd_research.records.store import record_files

_OWN = ("results_dir", "address")
"""Words of a command that name a place of whoever ran it, and change no number."""


def shared(row: Row, record: Record) -> tuple[Row, Record]:
    """A record and its row as others may read them; one that names no folder stays as it is, byte for byte.

    Of a path whose content is part of the cell by its checksum the last word is kept, so that the id stays.

    Raises:
        RecordError: a folder is part of the cell itself.
    """
    cell = record.cell
    parts = {part: _without_folders(options) for part in (*COMPONENTS, *OPTIONAL) if (options := getattr(cell, part))}
    told = Cell.from_dict({**cell.to_dict(), **parts, "command": _command(cell.command)})
    if told.id != cell.id or without_paths(told.identity()) != told.identity():
        name = f"{cell.readable}-{cell.id}"
        raise RecordError(f"{name} cannot be shared: a folder of its own is part of it, of which nothing was read")
    reason = str(without_paths(record.reason))
    if told == cell and reason == record.reason:
        return row, record
    found = replace(record, cell=told, reason=reason)
    return (row[0], record_files(found)), found


def _without_folders(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a part, of whose paths, where a checksum says what they hold, the last word is left."""
    hashed = bool(options.get("sha256"))
    return {key: Path(value).name if hashed and value and _is_path(key) else value for key, value in options.items()}


def _command(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:  # no command that anybody could run
        words = command.split()
    kept = [word for word in words if word.partition("=")[0] not in _OWN]
    return " ".join(kept[:2] + [shlex.quote(_word(word)) for word in kept[2:]])


def _word(word: str) -> str:
    key, given, value = word.partition("=")
    bare = value.strip("'\"")
    whole = bare.startswith(("/", "~/")) and " " in bare  # which in a text would end the path
    if not given or not (whole or _is_path(key.rpartition(".")[2])):
        return str(without_paths(word))
    mark = value[: len(value) - len(value.lstrip("'\""))]
    return f"{key}={mark}{Path(bare).name}{mark}"


def _is_path(key: str) -> bool:
    return key in ("path", "key_file") or key.endswith("_path")
