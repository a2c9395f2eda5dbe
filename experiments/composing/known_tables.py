"""The declared tables that can be made of what lies in a place, without running or composing a cell."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from experiments.composing.declared import SIZES, Declared, TableSource, bench_commands, declared, of_benches, tables_of
from experiments.composing.products import expand
from smd_research.core.errors import ConfigError, LabError
from smd_research.core.paths import conf_dir
from smd_research.core.progress import say

if TYPE_CHECKING:
    from smd_research.records import Record
    from smd_research.reports.board import BoardTable, PackedFile


def known_tables(place: Path, files: Sequence["PackedFile"]) -> list["BoardTable"]:
    """Tables of packed records that bear a table's name, as ``smd table`` leaves them, and of benches measured there.

    A table that its records no longer fit is left out and named.

    Args:
        place: a results folder, a folder of packed records, or one packed file.
        files: the packed records found there.
    """
    from smd_research.reports.board import BoardTable

    found = []
    for name, table, source in sorted(_sources(place, files), key=lambda one: one[0]):
        size = "" if table.size == SIZES[0] else f" size={table.size}"
        command = " && ".join([*bench_commands(table), f"smd table table={name.removesuffix(f'-{table.size}')}{size}"])
        try:
            found.append(BoardTable(name, *tables_of(table, source, command)))
        except LabError as error:
            say(f"no table {name}: {error}")
    return found


def _sources(place: Path, files: Sequence["PackedFile"]) -> Iterator[tuple[str, Declared, TableSource]]:
    """Each table that there is something for, with what it is made of."""
    from smd_research.records import frame_of
    from smd_research.records.bench import bench_file
    from smd_research.reports.samples import sample_of_frame

    packed = {file.table: file.records for file in files}
    measured = (place / "bench").is_dir()
    for path in sorted((conf_dir() / "table").glob("*.yaml")):
        if not measured and not any(name.startswith(path.stem) for name in packed):
            continue
        node = OmegaConf.to_container(OmegaConf.load(path))
        for size in SIZES:
            table = _declared(node, size)
            if table is None:
                continue
            name = table.file(path.stem)
            if table.sweep and name in packed:
                frame = frame_of(_as_declared(table, packed[name]))
                yield name, table, TableSource(frame, sample_of_frame(frame))
            elif table.benches and all(bench_file(place, one, size).is_file() for one in table.benches):
                yield name, table, of_benches(table, place)


def _as_declared(table: Declared, records: Sequence["Record"]) -> list["Record"]:
    """Records in the order of the sweep, by the words of their commands; packed files are in order of name."""
    lines = [set(line) for line in expand(table.sweep, [])]

    def place(record: "Record") -> int:
        words = set(record.cell.command.split())
        fitting = [number for number, line in enumerate(lines) if line <= words]
        return max(fitting, key=lambda number: len(lines[number]), default=len(lines))

    return sorted(records, key=place)


def _declared(node: Any, size: str) -> Declared | None:
    """A table in a size; None where it has none of it."""
    try:
        return declared({str(key): value for key, value in node.items()}, size)
    except ConfigError:
        return None
