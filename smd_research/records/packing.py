"""Many records in one file, for tables that are committed or sent: a row each, its four files as they are.

Nothing is lost and nothing rewritten, so that checksums hold and a cell unpacked is the cell that was packed.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smd_research.core.errors import RecordError
from smd_research.core.whole_file import write_whole
from smd_research.records.folders import replace_folder
from smd_research.records.record import Record
from smd_research.records.schema import FILES, SchemaError, parsed
from smd_research.records.store import Store, printable, read

Row = tuple[str, Mapping[str, bytes]]
"""The name of a record's folder, and its files by name."""

_NAMES = (*FILES, "environment.json")
_SCHEMA = pa.schema([("folder", pa.string()), *((name, pa.binary()) for name in _NAMES)])


def pack(folders: Sequence[Path], path: Path) -> Path:
    """Write records as one Parquet file, in order of name; what stood there is replaced at once.

    Args:
        folders: of the records.
        path: of the file.

    Raises:
        RecordError: when a record cannot be read or the file not be written.
    """
    try:
        content = packed_bytes(map(row_of, folders))
    except OSError as error:
        raise RecordError(f"cannot pack {error.filename}: {error.strerror or error}") from error
    return write_whole(path, content)


def row_of(folder: Path) -> Row:
    """The row of a record's folder.

    Raises:
        OSError: when a file of it cannot be read.
    """
    return folder.name, {name: (folder / name).read_bytes() for name in _NAMES}


def packed_bytes(rows: Iterable[Row]) -> bytes:
    """The content of a packed file, its rows in order of name."""
    buffer = io.BytesIO()
    listed = [{"folder": name, **contents} for name, contents in sorted(rows, key=lambda row: row[0])]
    pq.write_table(pa.Table.from_pylist(listed, _SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def packed(path: Path) -> Iterator[Record]:
    """The records of a packed file, each checked as one of a folder is.

    Raises:
        RecordError: when the file, or a record in it, does not hold together.
    """
    for name, contents in packed_rows(path):
        yield checked(path, name, contents)


def unpack(path: Path, store: Store) -> tuple[list[Path], list[Path]]:
    """Put the records of a packed file where a store keeps its own; a cell that has one there keeps it.

    All are checked before the first is written.

    Returns:
        The folders written, and those that were there before.

    Raises:
        RecordError: when the file, or a record in it, does not hold together, or nothing can be written.
    """
    found = [(checked(path, name, contents), contents) for name, contents in packed_rows(path)]
    store.prepare()
    written, kept = [], []
    for record, contents in found:
        folder = store.folder(record.cell)
        if folder.exists():
            kept.append(folder)
            continue
        try:
            replace_folder(folder, contents)
        except OSError as error:
            raise RecordError(f"cannot write {folder}: {error.strerror or error}; free space there") from error
        written.append(folder)
    return written, kept


def packed_rows(path: Path) -> Iterator[Row]:
    """The rows of a packed file, unchecked.

    Raises:
        RecordError: when the file cannot be read, or is another one.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(path.read_bytes()))
        there = file.schema_arrow
        table = file.read(use_threads=False) if there.equals(_SCHEMA) else None
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise RecordError(f"{path} is no file of packed records: {printable(str(error))}") from error
    if table is None:
        raise RecordError(f"{path} is no file of packed records: its columns are {printable(str(there.names))}")
    for row in table.to_pylist():
        name = row.pop("folder")
        yield str(name), {key: value or b"" for key, value in row.items()}


def checked(path: Path, name: str, contents: Mapping[str, bytes]) -> Record:
    """The record of a row of a packed file; its path is ``FILE/NAME``, where :func:`record_at` finds it again.

    Raises:
        RecordError: when it does not hold together; the message names file and record.
    """
    try:
        return parsed(path / Path(name).name, contents)
    except Exception as error:  # whatever a damaged file makes a parser do, the record is what is wrong
        what = str(error) if isinstance(error, SchemaError) else f"{type(error).__name__}: {error}"
        raise RecordError(f"{path}: its record {printable(name)} is corrupt: {printable(what)}") from error


def record_at(path: Path) -> Record:
    """The record of a folder, or of a name in a packed file: where a frame says that a cell lies.

    Raises:
        RecordError: there is none, or it does not hold together.
    """
    file = path.parent
    if not file.is_file():
        return read(path)
    try:
        there = file.stat()
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror or error}") from error
    held = _by_name(file, there.st_mtime_ns, there.st_size)
    if path.name not in held:
        raise RecordError(f"{file} holds no record {path.name}: it was packed anew since this was read")
    return checked(file, path.name, held[path.name])


@lru_cache(maxsize=1)
def _by_name(path: Path, _changed: int, _size: int) -> Mapping[str, Mapping[str, bytes]]:
    """A packed file, read once for all of its records that are asked for in a row."""
    return dict(packed_rows(path))
