"""Which kinds of secrets leak: names, dates, amounts, each apart."""

from collections import defaultdict

import pandas as pd

from smd_research.metrics import aggregate
from smd_research.records.frame import folder_of, readable
from smd_research.records.items import Item, read_items
from smd_research.reports.batteries import Battery, Score, batteries
from smd_research.reports.marks import TokenVerdict, marks
from smd_research.reports.points import Point
from smd_research.reports.tables.entries import entry
from smd_research.reports.tables.table import Column, Table, TableEntry


def secrets_by_type(frame: pd.DataFrame, title: str = "Secrets recovered by the best attack, by type") -> Table:
    """Defenses by types of secret: the share of spans that the best attack recovers whole.

    The intervals take spans as independent, which those of one prompt are not quite.

    A record whose prompts cannot be read is left out with a warning.

    Args:
        frame: as :func:`smd_research.records.load` gives it; the records' folders are read for their prompts.
        title: heading of the table.
    """
    found: list[tuple[Battery, Score, dict[str, list[bool]]]] = []
    for battery in batteries(frame):
        best = battery.best("span_exact")
        if best is not None and battery.tested:
            records = readable([folder_of(frame, best.id)])
            found += [(battery, best, recovered_spans(read_items(record.items))) for record in records]
    types = sorted({kind for _, _, spans in found for kind in spans})
    rows = tuple(
        (
            TableEntry(battery.label),
            TableEntry(best.attack, ids=(best.id,)),
            *(_entry(spans.get(t, []), best) for t in types),
        )
        for battery, best, spans in found
    )
    columns = (Column("defense", align="left"), Column("best attack", align="left"), *(Column(kind) for kind in types))
    return Table(title, columns, rows)


def recovered_spans(items: list[Item]) -> dict[str, list[bool]]:
    """For each type of secret, whether each of its spans was recovered whole."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        for secret in item.secrets:  # texts were not recorded
            hits[secret.type] += [n < secret.found for n in range(secret.count)]
        verdicts = [mark.verdict is TokenVerdict.RECOVERED for mark in marks(item)]
        for span in item.spans:
            hits[span.type].append(all(verdicts[span.start : span.end]))
    return hits


def _entry(hits: list[bool], best: Score) -> TableEntry:
    estimate = aggregate([float(hit) for hit in hits], "rate")
    if not estimate.n:
        return entry(None)
    figures = (estimate.mean, estimate.low, estimate.high, estimate.n)
    return entry(Point(best.labels, "span_exact", *figures, id=best.id), "leak")
