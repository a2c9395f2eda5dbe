"""Where the records of a board lie: a results folder, files of packed records, or both."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smd_research.core.errors import RecordError
from smd_research.records import Record, Store, packed, readable


@dataclass(frozen=True)
class Sourced:
    """A record and the files and folders that hold it, relative to where was looked."""

    record: Record
    sources: tuple[str, ...]


def packed_files(place: Path) -> list[Path]:
    """The files of packed records of a place: itself, or those in it, in its ``records`` and ``tables/records``."""
    if place.is_file():
        return [place]
    folders = (place, place / "records", place / "tables" / "records")
    return [file for folder in folders for file in sorted(folder.glob("*.parquet"))]


def sourced(place: Path) -> list[Sourced]:
    """Every record of a place, each cell once, in order of defense, attack and id.

    Of a cell that is there several times, the record that finished last counts; among equals that of the folder.

    Args:
        place: a results folder, a folder of packed records, or one file of them.

    Raises:
        RecordError: there are none, or a packed file does not hold together.
    """
    found: dict[str, Sourced] = {}
    for source, record in _all(place):
        known = found.get(record.cell.id)
        sources = (*(known.sources if known else ()), source)
        newer = known is None or _finished(record) > _finished(known.record)
        found[record.cell.id] = Sourced(record if newer or known is None else known.record, sources)
    if not found:
        raise RecordError(f"{place} holds no records: run experiments first, or choose another results_dir=")
    return sorted(found.values(), key=lambda one: (one.record.cell.readable, one.record.cell.id))


def _all(place: Path) -> Iterator[tuple[str, Record]]:
    for record in readable(Store(place).paths()):
        yield f"cells/{record.path.name if record.path else record.cell.id}", record
    for file in packed_files(place):
        name = file.name if file == place else str(file.relative_to(place))
        for record in packed(file):
            yield name, record


def _finished(record: Record) -> str:
    """When a record was finished, as ISO 8601 in UTC; empty where it does not say."""
    return str(record.environment.get("finished_at", ""))
