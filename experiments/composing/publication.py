"""A folder of results as it is published: all that is in it follows from its records, its benches and its terms.

So whoever has such a folder can make it again from its records, and compare every file.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.composing.known_tables import known_tables
from smd_research.core.errors import RecordError
from smd_research.records import frame_of, with_options
from smd_research.records.frame import CorruptRecordWarning
from smd_research.records.manifest import Manifest
from smd_research.records.packing import Row, checked, packed_bytes, packed_rows, row_of
from smd_research.records.sharing import shared
from smd_research.records.store import Store, read

if TYPE_CHECKING:
    from smd_research.records import Record
    from smd_research.reports.board import PackedFile

RECORDS, BENCHES = "records", "bench"
"""The folders of what is measured; everything else is made of it."""

REST = "cells"
"""The packed file of records that no table was made of."""


@dataclass(frozen=True)
class Gathered:
    """What a folder of results holds.

    Attributes:
        rows: of each packed file.
        records: the same, read.
    """

    rows: Mapping[str, Sequence[Row]]
    records: Mapping[str, Sequence["Record"]]

    @property
    def packed(self) -> list["PackedFile"]:
        """The packed files as a board and its tables take them."""
        from smd_research.reports.board import PackedFile

        return [PackedFile(f"{RECORDS}/{name}.parquet", name, found) for name, found in self.records.items()]


def gathered(place: Path) -> Gathered:
    """What is published of a place: its packed records, and those of its cells that are in none, without folders.

    A cell that is packed and lies in the place counts as it lies there: it may have been run again since, or have lost
    its texts.

    Args:
        place: a results folder, a folder of packed records, or one packed file.

    Raises:
        RecordError: a packed file does not hold together, or a record cannot be shared.
    """
    from smd_research.reports.board import packed_paths

    lying = dict(_lying(place))
    found: dict[str, list[tuple[Row, Record]]] = {}
    for file in packed_paths(place):
        if file.stem not in found:  # of a table that is packed in two places the first counts
            rows = ((row, checked(file, *row)) for row in packed_rows(file))
            found[file.stem] = [lying.get(record.cell.id, (row, record)) for row, record in rows]
    known = {record.cell.id for table in found.values() for _, record in table}
    if rest := [one for cell, one in lying.items() if cell not in known]:
        found.setdefault(REST, []).extend(rest)
    told = {name: [shared(*one) for one in table] for name, table in found.items()}
    return Gathered(
        {name: [row for row, _ in table] for name, table in told.items()},
        {name: [record for _, record in table] for name, table in told.items()},
    )


def _lying(place: Path) -> Iterator[tuple[str, tuple[Row, "Record"]]]:
    """The cells of a results folder by their id; those that cannot be read are left out with a warning."""
    for folder in Store(place).paths():
        try:
            record, row = read(folder), row_of(folder)
        except (RecordError, OSError) as error:
            warnings.warn(str(error), CorruptRecordWarning, stacklevel=1)
        else:
            yield record.cell.id, (row, record)


def measured_files(found: Gathered, place: Path) -> dict[str, bytes]:
    """The files of what was measured, by name: packed records, and the benches that lie in a place."""
    packed = {f"{RECORDS}/{name}.parquet": packed_bytes(rows) for name, rows in found.rows.items()}
    benches = sorted((place / BENCHES).glob("*.json"))
    return packed | {f"{BENCHES}/{path.name}": path.read_bytes() for path in benches}


def made_files(found: Gathered, place: Path, told: Manifest) -> dict[str, bytes]:
    """The files that follow from what was measured, by name: frames, tables, board, environments, page.

    Args:
        found: the records.
        place: whose benches are read.
        told: title, licence and what the makers say.
    """
    from smd_research.reports.board import board_files, sourced_in
    from smd_research.reports.render.dataset_page import dataset_page, environments_of
    from smd_research.reports.render.text import table_texts

    tables = known_tables(place, found.packed)
    named = sourced_in(found.packed)
    frames = {name: with_options(frame_of(records)).drop(columns="path") for name, records in found.records.items()}
    environments = environments_of([one.record for one in named])
    texts = {
        "README.md": dataset_page(told, found.records, frames, tables, environments),
        "environment.json": json.dumps(environments, indent=2, ensure_ascii=False) + "\n",
        **{
            f"tables/{one.name}.{ending}": text
            for one in tables
            for ending, text in table_texts(one.table, one.claims).items()
        },
    }
    return {
        **{name: text.encode() for name, text in texts.items()},
        **{f"metrics/{name}.parquet": _parquet(frame) for name, frame in frames.items()},
        **({f"board/{name}": content for name, content in board_files(named, tables).items()} if named else {}),
    }


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
