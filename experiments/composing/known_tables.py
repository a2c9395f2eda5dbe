"""The declared tables that can be made of what lies in a place, without running or composing a cell."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from experiments.composing.declared import SIZES, Declared, TableSource, bench_commands, declared, of_benches, tables_of
from smd_research.core.errors import ConfigError, LabError
from smd_research.core.paths import conf_dir
from smd_research.core.progress import say

if TYPE_CHECKING:
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
    for path in sorted((conf_dir() / "table").glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        for size in SIZES:
            table = _declared(node, size)
            if table is None:
                continue
            name = table.file(path.stem)
            if table.sweep and name in packed:
                frame = frame_of(packed[name])
                yield name, table, TableSource(frame, sample_of_frame(frame))
            elif table.benches and all(bench_file(place, one, size).is_file() for one in table.benches):
                yield name, table, of_benches(table, place)


def _declared(node: Any, size: str) -> Declared | None:
    """A table in a size; None where it has none of it."""
    try:
        return declared({str(key): value for key, value in node.items()}, size)
    except ConfigError:
        return None
