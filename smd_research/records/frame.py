"""All records as one tidy frame."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from smd_research.core.cell import COMPONENTS, OPTIONAL, Cell, component_name, parameters
from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS, Estimate
from smd_research.records.options import option_columns
from smd_research.records.packing import packed, record_at
from smd_research.records.record import Record, Status
from smd_research.records.store import Store

DESIGN = (
    *(column for part in (*COMPONENTS, *OPTIONAL) for column in (part, f"{part}_params")),
    "n_prompts",
    "max_new_tokens",
    "prompt_tokens",
    "held_out",
    "seed",
    "dtype",
    "wire_dtype",
    "transport",
    "device",
)
"""The columns that say which cell a row belongs to; ``<part>_params`` is JSON with sorted keys.

A part that a cell has not (``task``, ``tuning``) is NA, and so are its options.
"""

VERSIONS = ("defense_version", "attack_version")
"""Component versions: records of an earlier version of the same cell may still lie beside the new ones."""

DEPLOYED = "defense_deployed"
"""JSON of what the defense chose when it was deployed (``parameters`` of the environment); NA if unknown."""

COLUMNS = (
    *DESIGN,
    *VERSIONS,
    DEPLOYED,
    "scored",
    "status",
    "reason",
    "metric",
    "unit",
    "direction",
    "mean",
    "low",
    "high",
    "n",
    "id",
    "path",
    "command",
)

_TYPES = {
    **dict.fromkeys(("mean", "low", "high"), "float64"),
    **dict.fromkeys(("n", "seed", "n_prompts", "max_new_tokens", "prompt_tokens", "held_out"), "Int64"),
    **dict.fromkeys(("scored", *VERSIONS), "Int64"),
}


class CorruptRecordWarning(UserWarning):
    """A record was left out because it cannot be read."""


def load(results_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """One row a cell and metric, with the design of the cell beside it, every option in a column of its own.

    ``unit`` and ``direction`` (whether lower or higher is better for the user) are those of the metric's card; an
    option stands in ``defense.epsilon``, ``attack.steps``, ... with its type, one left open as the deployment chose it.
    What a cell has not is NA, and a share has no unit. Failed and not-applicable cells keep one row, with their reason
    and no metric. Records in which anything is wrong, prompts included, are left out with a
    :class:`CorruptRecordWarning` that names them.

    Args:
        results_dir: the folder that holds ``cells/``, or a file of packed records.

    Raises:
        RecordError: when the folder holds no records, or a packed file does not hold together.
    """
    return with_options(frame_of(records_in(results_dir)))


def records_in(results_dir: str | os.PathLike[str]) -> Iterator[Record]:
    """The records of a results folder, corrupt ones left out as of :func:`readable`, or of a packed file.

    Raises:
        RecordError: as :func:`load`.
    """
    path = Path(results_dir)
    return packed(path) if path.is_file() else readable(Store(path).filled())


def with_options(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with a typed column for each option of its cells beside the JSON, see :func:`load`."""
    return pd.concat([frame, option_columns(frame, (*COMPONENTS, *OPTIONAL), {"defense": DEPLOYED})], axis=1)


def readable(folders: Iterable[Path]) -> Iterator[Record]:
    """The records of folders, or of places in packed files; of corrupt ones a :class:`CorruptRecordWarning` warns."""
    for folder in folders:
        try:
            yield record_at(folder)
        except RecordError as error:
            warnings.warn(str(error), CorruptRecordWarning, stacklevel=1)


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """The frame of records at hand, as :func:`load` gives it but for the columns of options; of none it is empty."""
    return tidy([row for record in records for row in _rows(record)])


def frame_of_sweep(cells: Sequence[Cell], records: Sequence[Record]) -> pd.DataFrame:
    """The frame of a sweep of which some cells may not have run: those have one row, with status ``missing``."""
    known = {record.cell.id: record for record in records}
    return frame_of([known.get(cell.id) or Record(Status.MISSING, cell, "not run yet") for cell in cells])


def read_record(frame: pd.DataFrame, cell: str) -> Record:
    """Read the whole record of a cell of a frame, its prompts included.

    Args:
        frame: as :func:`load` gives it.
        cell: its id.

    Raises:
        RecordError: when it has become unreadable since it was loaded.
    """
    return record_at(folder_of(frame, cell))


def folder_of(frame: pd.DataFrame, cell: str) -> Path:
    """The folder of a cell of a frame, or its place in a packed file, by its id."""
    return Path(str(frame.loc[frame["id"] == cell, "path"].iloc[0]))


def has_metric(frame: pd.DataFrame, metric: str) -> bool:
    """Whether any cell of a frame holds a metric."""
    return bool(((frame["metric"] == metric) & frame["mean"].notna()).any())


def tidy(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with all columns and stable types, also when there is no row."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)


def design(cell: Cell) -> dict[str, Any]:
    """The design and version columns of a cell."""
    row: dict[str, Any] = {}
    for part in (*COMPONENTS, *OPTIONAL):
        component = getattr(cell, part)
        row[part] = None if component is None else component_name(component)
        row[f"{part}_params"] = None if component is None else json.dumps(parameters(component), sort_keys=True)
    row |= {name: getattr(cell, name) for name in DESIGN if name not in row}
    return row | {name: cell.versions.get(name.removesuffix("_version"), 1) for name in VERSIONS}


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    common = design(record.cell) | {
        DEPLOYED: _deployed(record),
        "scored": record.scored,
        "status": str(record.status),
        "reason": record.reason or None,
        "id": record.cell.id,
        "path": str(record.path) if record.path else None,
        "command": record.cell.command or None,
    }
    metrics: dict[Any, Estimate] = dict(record.metrics) or {None: Estimate(float("nan"), n=0)}
    for name, estimate in metrics.items():
        numbers = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        yield common | {"metric": name} | _read_as(name) | numbers


def _read_as(metric: str | None) -> dict[str, str | None]:
    """The unit of a metric and which way it is better; None where it has no card, and of a share no unit."""
    card = CARDS.get(metric or "")
    return {"unit": card.unit or None if card else None, "direction": card.better if card else None}


def _deployed(record: Record) -> str | None:
    chosen = record.environment.get("parameters")
    return json.dumps(chosen, sort_keys=True) if isinstance(chosen, dict) and chosen else None
