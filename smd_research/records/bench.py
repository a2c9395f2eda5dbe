"""Timing files: ``<results_dir>/bench/NAME.json``, the one source of every timing table and figure."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smd_research.core.errors import RecordError
from smd_research.metrics.spread import NOTHING, Spread
from smd_research.records import numbers
from smd_research.records.tables import Column, Entry, Table

Label = str | int | float


@dataclass(frozen=True)
class BenchCase:
    """One way of doing some work, beside another; all sides of a case are interleaved in one run.

    Attributes:
        case: what is compared, ``<model> [key=value ...] <a>/<b>``.
        value: median of the first side.
        baseline: median of the second; NaN where there is none.
        ratio: value over baseline.
        unit: of value and baseline.
        n: repetitions behind the medians.
        labels: the case's parameters, e.g. ``{"model": "100m", "users": 8, "mode": "smd"}``.
        extra: what else the first side measured, by name; its unit is part of the name.
        value_spread: the first side's median with its 95 % interval.
        ratio_spread: the ratio with the interval of the ratios within a turn.
    """

    case: str
    value: float
    baseline: float
    ratio: float
    unit: str
    n: int
    labels: Mapping[str, Label] = field(default_factory=dict)
    extra: Mapping[str, Spread] = field(default_factory=dict)
    value_spread: Spread = NOTHING
    ratio_spread: Spread = NOTHING


@dataclass(frozen=True)
class Bench:
    """A bench file.

    Attributes:
        cases: its rows.
        environment: where it was measured, as of :func:`smd_research.records.environment`.
        settings: repeats, threads, device, seed and size it was run with.
    """

    cases: tuple[BenchCase, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def bench_file(results_dir: Path, name: str, size: str = "small") -> Path:
    """Where a bench of a size is written."""
    return results_dir / "bench" / f"{name if size == 'small' else f'{name}-{size}'}.json"


def bench_command(name: str, size: str = "small") -> str:
    """The command that measures a bench."""
    return f"smd bench bench={name}" + ("" if size == "small" else f" size={size}")


def read_bench(results_dir: str | os.PathLike[str], name: str, size: str = "small") -> Bench:
    """The content of a bench file.

    Raises:
        RecordError: when it is missing or not a bench file.
    """
    path, command = bench_file(Path(results_dir), name, size), bench_command(name, size)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Bench(tuple(map(_case, found["cases"])), dict(found["environment"]), dict(found["settings"]))
    except FileNotFoundError as error:
        raise RecordError(f"no bench file {path}: run `{command}` first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"corrupt bench file {path} ({error}): run `{command}` again") from error


def sample_of_benches(benches: Sequence[Bench]) -> str:
    """How often each side was measured, and where: medians of one machine never compare with those of another."""
    counts = sorted({case.n for bench in benches for case in bench.cases})
    if not counts:
        return ""
    places = dict.fromkeys(place for bench in benches if (place := _place(bench)))
    if counts == [1]:
        return "; ".join(["Counted once", *places])
    measured = f"Medians of n = {numbers.span(counts)} measurements, 95 % intervals"
    compared = any(not math.isnan(case.ratio) for bench in benches for case in bench.cases)
    sides = ["the sides of a case interleaved in one run"] if compared else []
    return "; ".join([measured, *sides, *places])


def _place(bench: Bench) -> str:
    """Processor or accelerator, cores and threads; empty where the file does not say."""
    environment = bench.environment
    if environment.get("accelerator"):
        return str(environment["accelerator"])
    cpu = environment.get("cpu") or {}
    if not cpu:
        return ""
    name = cpu.get("name") or environment.get("platform", "")
    return f"{name}, {cpu.get('usable')} cores, {bench.settings.get('threads', 1)} thread(s) a party"


def _case(row: Mapping[str, Any]) -> BenchCase:
    value, baseline, ratio = (_spread(row, name) for name in ("value", "baseline", "ratio"))
    return BenchCase(
        str(row["case"]), value.median, baseline.median, ratio.median, str(row["unit"]), int(row["n"]),
        dict(row.get("labels", {})), {name: Spread(*map(_number, ends)) for name, ends in row.get("extra", {}).items()},
        value, ratio,
    )  # fmt: skip


def _spread(row: Mapping[str, Any], name: str) -> Spread:
    low, high = (_number(row.get(f"{name}_{end}")) for end in ("low", "high"))
    return Spread(_number(row["value"] if name == "value" else row.get(name)), low, high)


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
