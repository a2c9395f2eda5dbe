"""Timing files: ``<results_dir>/bench/NAME.json``, the one source of every timing table and figure."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smd_research.core.errors import RecordError
from smd_research.metrics.spread import NOTHING, Spread

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
    except Exception as error:  # whatever an odd file makes its reader do, the file is what is wrong
        raise RecordError(f"corrupt bench file {path} ({type(error).__name__}): run `{command}` again") from error


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


def _number(value: object) -> float:
    return math.nan if value is None else float(str(value))
