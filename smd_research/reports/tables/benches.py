"""Cases of a bench as a table."""

import math
from collections.abc import Sequence

from smd_research.records.bench import BenchCase
from smd_research.reports.render import numbers
from smd_research.reports.tables.table import Column, Table, TableEntry


def bench_table(cases: Sequence[BenchCase], title: str) -> Table:
    """Cases as a table: both medians, their ratio, repetitions."""
    columns = (Column("case", align="left"), Column("median"), Column("baseline"), Column("ratio"), Column("n"))
    rows = tuple(
        (
            TableEntry(case.case),
            _measured(case.value, case.unit, case.n),
            _measured(case.baseline, case.unit, case.n),
            TableEntry(numbers.MISSING if math.isnan(case.ratio) else f"{case.ratio:.2f}x", value=case.ratio, n=case.n),
            TableEntry(str(case.n)),
        )
        for case in cases
    )
    note = "Medians; both sides interleaved in one run on one machine. Never compare across machines."
    return Table(title, columns, rows, (note,))


def _measured(value: float, unit: str, n: int) -> TableEntry:
    text = numbers.MISSING if math.isnan(value) else f"{numbers.quantity(value)} {unit}"
    return TableEntry(text, value=value, n=n)
