"""How exact an exact defense is: the largest error over every token scored, not a mean that hides one."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smd_research.records.store import read
from smd_research.reports.render import numbers
from smd_research.reports.tables.table import Column, Table, TableEntry

COLUMNS = (
    Column("model", align="left"),
    Column("defense", align="left"),
    Column("transport", align="left"),
    Column("wire", align="left"),
    Column("prompts"),
    Column("tokens", "scored"),
    Column("logit error", "largest, relative"),
    Column("KL", "largest, nats"),
    Column("greedy equal", "share of tokens"),
)


def exactness(frame: pd.DataFrame, title: str = "Exactness") -> Table:
    """One row a cell: the defended model's logits against the plain model's, teacher-forced.

    Cells that have not run stand as ``...``; failed ones have no row.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        title: heading of the table.
    """
    cells = frame.drop_duplicates("id").sort_values(["model", "defense", "transport"], kind="stable")
    rows = [_row(cell) for cell in cells.to_dict("records") if cell["status"] in ("ok", "missing")]
    note = "Logit error: max |defended - plain| over the vocabulary, over max |plain|; all tokens of all prompts."
    return Table(title, COLUMNS, tuple(rows), (note,))


def _row(cell: Mapping[Hashable, Any]) -> tuple[TableEntry, ...]:
    labels = tuple(TableEntry(str(cell[name])) for name in ("model", "defense", "transport", "wire_dtype"))
    if cell["status"] == "missing":
        return (*labels, *[TableEntry(numbers.PENDING, note=str(cell["reason"]))] * (len(COLUMNS) - len(labels)))
    items = read(Path(str(cell["path"]))).items
    ids = (str(cell["id"]),)
    tokens = items["scored_tokens"]
    equal = float((items["greedy_equal"] * tokens).sum() / tokens.sum())
    figures = [float(items[column].max()) for column in ("logit_error", "kl")]
    return (
        *labels,
        TableEntry(str(len(items)), n=len(items)),
        TableEntry(f"{int(tokens.sum()):,}", n=len(items)),
        *(TableEntry(f"{value:.1e}", value=value, n=len(items), ids=ids) for value in figures),
        TableEntry(numbers.share(equal), value=equal, n=len(items), ids=ids),
    )
