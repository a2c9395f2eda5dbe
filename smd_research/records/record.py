"""What a cell left behind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from smd_research.core.cell import Cell, without_home
from smd_research.metrics import CARDS, SCORES, Estimate
from smd_research.records.items import items_frame, read_items

_HELD_UNCOUNTED = {"defense": ("fresh_epsilon", "precision")}
"""Options that older records hold where they are null, without counting them; a cell holds only what counts."""


class Status(StrEnum):
    """How a cell ended; ``MISSING`` is one that a table declares and nobody has run: it is shown, never written."""

    OK = "ok"
    FAILED = "failed"
    NOT_APPLICABLE = "n/a"
    MISSING = "missing"


@dataclass(frozen=True)
class Record:
    """A finished, failed or not-applicable cell.

    Attributes:
        status: how the cell ended.
        cell: the point of the grid.
        reason: why it failed or does not apply; empty when ok.
        metrics: estimates by metric name.
        items: one row a prompt, see :mod:`smd_research.records.items`; holds secrets, so it is never shown in a repr.
        environment: where and with what it ran, see :mod:`smd_research.records.environment`.
        path: the folder it was read from or written to.
        scored: the version of the scores by which items became metrics, :data:`smd_research.metrics.SCORES`.
        texts: whether its items hold what was asked and guessed. Without, scores stand at the version that they were
            scored by: nothing is left to score again.
    """

    status: Status
    cell: Cell
    reason: str = ""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    items: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    environment: Mapping[str, Any] = field(default_factory=dict, repr=False)
    path: Path | None = None
    scored: int = SCORES
    texts: bool = True


NO_TEXTS = "texts were not recorded (record_texts=false)"
"""What stands in the place of the texts that a record was told to leave out."""


def without_texts(record: Record) -> Record:
    """The same record with the numbers of its items alone."""
    if not record.texts:
        return record
    return replace(record, items=items_frame(read_items(record.items), texts=False), texts=False)


def metrics_document(record: Record) -> dict[str, Any]:
    """The content of ``metrics.json``; values that are not finite are written as null."""
    return {
        "status": str(record.status),
        "reason": without_home(record.reason),
        "scored": record.scored,
        "texts": record.texts,
        "cell": {"id": record.cell.id, "readable": record.cell.readable, **record.cell.to_dict()},
        "metrics": {name: _estimate_document(estimate) for name, estimate in record.metrics.items()},
    }


def parse_metrics(document: Any) -> tuple[Status, str, Cell, dict[str, Estimate]]:
    """The inverse of :func:`metrics_document`, of a document that follows the schema.

    Raises:
        ConfigError: when its cell lacks a part.
    """
    metrics = {name: _parse_estimate(name, value) for name, value in document["metrics"].items()}
    return Status(document["status"]), str(document["reason"] or ""), _parse_cell(document["cell"]), metrics


def _parse_cell(values: Mapping[str, Any]) -> Cell:
    counted = dict(values)
    for part, names in _HELD_UNCOUNTED.items():
        options = values.get(part)
        if isinstance(options, Mapping):
            counted[part] = {k: v for k, v in options.items() if v is not None or k not in names}
    return Cell.from_dict(counted)


def _estimate_document(estimate: Estimate) -> dict[str, float | int | None]:
    numbers = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    finite = {key: float(value) if math.isfinite(value) else None for key, value in numbers.items()}
    return {**finite, "n": int(estimate.n)}


def _parse_estimate(name: str, value: Mapping[str, Any]) -> Estimate:
    mean, low, high = (math.nan if value[key] is None else float(value[key]) for key in ("mean", "low", "high"))
    if name in CARDS and CARDS[name].scale == "known":
        low = high = math.nan  # earlier records gave it an interval, as if it had been measured
    return Estimate(mean, low, high, int(value["n"]))
