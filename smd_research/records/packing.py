"""Many records in one file, for tables that are committed or sent: a row each, its four files as they are.

Nothing is lost and nothing rewritten, so that checksums hold and a cell unpacked is the cell that was packed.
"""

import io
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smd_research.core.errors import RecordError
from smd_research.records.folders import replace_folder
from smd_research.records.record import Record
from smd_research.records.schema import FILES, SchemaError, parsed
from smd_research.records.store import Store, printable

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
    rows = []
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        for folder in sorted(folders, key=lambda one: one.name):
            rows.append({"folder": folder.name, **{name: (folder / name).read_bytes() for name in _NAMES}})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), scratch, compression="zstd")
        scratch.replace(path)
    except OSError as error:
        raise RecordError(f"cannot pack into {path}: {error.strerror or error}; free space there") from error
    finally:
        scratch.unlink(missing_ok=True)
    return path


def packed(path: Path) -> Iterator[Record]:
    """The records of a packed file, each checked as one of a folder is.

    Raises:
        RecordError: when the file, or a record in it, does not hold together.
    """
    for name, contents in _rows(path):
        yield _checked(path, name, contents)


def unpack(path: Path, store: Store) -> tuple[list[Path], list[Path]]:
    """Put the records of a packed file where a store keeps its own; a cell that has one there keeps it.

    All are checked before the first is written.

    Returns:
        The folders written, and those that were there before.

    Raises:
        RecordError: when the file, or a record in it, does not hold together, or nothing can be written.
    """
    found = [(_checked(path, name, contents), contents) for name, contents in _rows(path)]
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


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    try:
        table = pq.ParquetFile(io.BytesIO(path.read_bytes())).read(use_threads=False)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise RecordError(f"{path} is no file of packed records: {printable(str(error))}") from error
    if not table.schema.equals(_SCHEMA):
        raise RecordError(f"{path} is no file of packed records: its columns are {printable(str(table.column_names))}")
    for row in table.to_pylist():
        name = row.pop("folder")
        yield str(name), {key: value or b"" for key, value in row.items()}


def _checked(path: Path, name: str, contents: Mapping[str, bytes]) -> Record:
    try:
        return parsed(Path(name), contents)
    except Exception as error:  # whatever a damaged file makes a parser do, the record is what is wrong
        what = str(error) if isinstance(error, SchemaError) else f"{type(error).__name__}: {error}"
        raise RecordError(f"{path}: its record {printable(name)} is corrupt: {printable(what)}") from error
