"""How exact an exact defense is: the largest error over every token scored, not a mean that hides one."""

import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smd_research.records.frame import readable
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
MEASURED = ["scored_tokens", "greedy_equal", "logit_error", "kl"]
"""Of each prompt."""


def exactness(frame: pd.DataFrame, title: str = "Exactness") -> Table:
    """One row a cell: the defended model's logits against the plain model's, teacher-forced.

    Cells that have not run stand as ``...``; failed ones have no row.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        title: heading of the table.
    """
    cells = frame.drop_duplicates("id").sort_values(["model", "defense", "transport"], kind="stable")
    rows = [row for cell in cells.to_dict("records") if cell["status"] in ("ok", "missing") for row in _rows(cell)]
    note = "Logit error: max |defended - plain| over the vocabulary, over max |plain|; all tokens of all prompts."
    return Table(title, COLUMNS, tuple(rows), (note,))


def _rows(cell: Mapping[Hashable, Any]) -> Iterator[tuple[TableEntry, ...]]:
    """The row of a cell; none where its prompts cannot be read."""
    labels = tuple(TableEntry(str(cell[name])) for name in ("model", "defense", "transport", "wire_dtype"))
    if cell["status"] == "missing":
        yield (*labels, *[TableEntry(numbers.PENDING, note=str(cell["reason"]))] * (len(COLUMNS) - len(labels)))
        return
    for record in readable([Path(str(cell["path"]))]):
        yield (*labels, *_figures(record.items.reindex(columns=MEASURED).astype(float), (str(cell["id"]),)))


def _figures(items: pd.DataFrame, ids: tuple[str, ...]) -> tuple[TableEntry, ...]:
    tokens = items["scored_tokens"]
    equal = float((items["greedy_equal"] * tokens).sum() / tokens.sum()) if tokens.sum() else math.nan
    figures = [float(items[column].max()) for column in ("logit_error", "kl")]
    return (
        TableEntry(str(len(items)), n=len(items)),
        TableEntry(f"{tokens.sum():,.0f}", n=len(items)),
        *(
            TableEntry(numbers.MISSING if math.isnan(value) else f"{value:.1e}", value=value, n=len(items), ids=ids)
            for value in figures
        ),
        TableEntry(numbers.share(equal), value=equal, n=len(items), ids=ids),
    )
