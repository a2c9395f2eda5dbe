"""Where the records of a board lie: a results folder, files of packed records, or both."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smd_research.core.errors import RecordError
from smd_research.records import Record, Store, packed, readable


@dataclass(frozen=True)
class PackedFile:
    """What a file of packed records holds; its name is relative to where was looked."""

    name: str
    table: str
    records: Sequence[Record] = field(repr=False)


@dataclass(frozen=True)
class Sourced:
    """A record and the files and folders that hold it, relative to where was looked."""

    record: Record
    sources: tuple[str, ...]


def packed_files(place: Path) -> list[PackedFile]:
    """The packed records of a place: of itself, or of the files in it, in its ``records`` and ``tables/records``.

    Args:
        place: a results folder, a folder of packed records, or one file of them.

    Raises:
        RecordError: a file does not hold together.
    """
    base = place.parent if place.is_file() else place
    return [PackedFile(str(file.relative_to(base)), file.stem, list(packed(file))) for file in packed_paths(place)]


def packed_paths(place: Path) -> list[Path]:
    """Where the files of :func:`packed_files` lie."""
    folders = (place, place / "records", place / "tables" / "records")
    return [place] if place.is_file() else [file for folder in folders for file in sorted(folder.glob("*.parquet"))]


def sourced(place: Path, files: Sequence[PackedFile]) -> list[Sourced]:
    """Every record of a place, each cell once, in order of defense, attack and id.

    Of a cell that is there several times, the record that finished last counts; among equals that of the folder.

    Args:
        place: as of :func:`packed_files`.
        files: that it found there.

    Raises:
        RecordError: there are no records.
    """
    if not (found := _once(_all(place, files))):
        raise RecordError(f"{place} holds no records: run experiments first, or choose another results_dir=")
    return found


def sourced_in(files: Sequence[PackedFile]) -> list[Sourced]:
    """Every record of packed files alone, as :func:`sourced`; of none there are none."""
    return _once((file.name, record) for file in files for record in file.records)


def _once(named: Iterable[tuple[str, Record]]) -> list[Sourced]:
    found: dict[str, Sourced] = {}
    for source, record in named:
        known = found.get(record.cell.id)
        if known is None:
            found[record.cell.id] = Sourced(record, (source,))
        else:
            newer = _finished(record) > _finished(known.record)
            found[record.cell.id] = Sourced(record if newer else known.record, (*known.sources, source))
    return sorted(found.values(), key=lambda one: (one.record.cell.readable, one.record.cell.id))


def _all(place: Path, files: Sequence[PackedFile]) -> Iterator[tuple[str, Record]]:
    for folder in Store(place).paths():
        for record in readable([folder]):
            yield f"cells/{folder.name}", record
    for file in files:
        for record in file.records:
            yield file.name, record


def _finished(record: Record) -> str:
    """When a record was finished, as ISO 8601 in UTC; empty where it does not say."""
    return str(record.environment.get("finished_at", ""))
