"""Timing files: ``<results_dir>/bench/NAME.json``, the one source of every timing table and figure."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smd_research.core.errors import RecordError
from smd_research.records import numbers
from smd_research.records.tables import Column, Entry, Table


@dataclass(frozen=True)
class BenchCase:
    """One comparison, both sides interleaved in one run.

    Attributes:
        case: what is compared, ``<model> [key=value ...] <a>/<b>``.
        value: median of the first side.
        baseline: median of the second; NaN where there is none.
        ratio: value over baseline.
        unit: of value and baseline.
        n: repetitions behind the medians.
    """

    case: str
    value: float
    baseline: float
    ratio: float
    unit: str
    n: int


def read_bench(results_dir: str | os.PathLike[str], name: str) -> tuple[BenchCase, ...]:
    """The cases of a bench file.

    Raises:
        RecordError: when it is missing or not a bench file.
    """
    path = Path(results_dir) / "bench" / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            BenchCase(
                str(case["case"]), _number(case["value"]), _number(case.get("baseline")), _number(case.get("ratio")),
                str(case["unit"]), int(case["n"]),
            )
            for case in found
        )  # fmt: skip
    except FileNotFoundError as error:
        raise RecordError(f"no bench file {path}: run `smd bench bench={name}` first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"corrupt bench file {path} ({error}): run `smd bench bench={name}` again") from error


def bench_table(cases: Sequence[BenchCase], title: str) -> Table:
    """Cases as a table: both medians, their ratio, repetitions."""
    columns = (Column("case", align="left"), Column("median"), Column("baseline"), Column("ratio"), Column("n"))
    rows = tuple(
        (
            Entry(case.case),
            _measured(case.value, case.unit, case.n),
            _measured(case.baseline, case.unit, case.n),
            Entry(numbers.MISSING if math.isnan(case.ratio) else f"{case.ratio:.2f}x", value=case.ratio, n=case.n),
            Entry(str(case.n)),
        )
        for case in cases
    )
    note = "Medians; both sides interleaved in one run on one machine. Never compare across machines."
    return Table(title, columns, rows, (note,))


def _measured(value: float, unit: str, n: int) -> Entry:
    text = numbers.MISSING if math.isnan(value) else f"{numbers.quantity(value)} {unit}"
    return Entry(text, value=value, n=n)


def _number(value: object) -> float:
    return math.nan if value is None else float(str(value))
