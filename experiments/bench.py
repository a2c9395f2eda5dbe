"""``smd bench bench=NAME``: measure speed, both sides of every case interleaved in one run.

A bench is a module of :mod:`experiments.benches` with ``cases(settings)``, a generator of cases; what a case needs (a
model, a process) lives while the generator waits, so a bench cleans up by ``with``.
"""

import json
import pkgutil
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from experiments import benches
from experiments.app import launch
from experiments.overrides import UsageError, nearest
from experiments.progress import say

if TYPE_CHECKING:
    from experiments.benches.case import Case, Settings


def names() -> list[str]:
    """The benches there are."""
    return sorted(module.name for module in pkgutil.iter_modules(benches.__path__) if module.name != "case")


def measure(case: "Case", repeats: int) -> dict[str, Any]:
    """Measure one case.

    Returns:
        ``case``, the medians ``value`` and ``baseline`` in ``unit``, their ``ratio``, and ``n`` measurements a side.
    """
    for _ in range(case.warmup):
        case.value()
        case.baseline()
    values: list[float] = []
    baselines: list[float] = []
    for turn in range(case.repeats or repeats):
        # Each side goes first as often as second: whatever the first leaves in the caches favours neither.
        for side in (case.value, case.baseline) if turn % 2 == 0 else (case.baseline, case.value):
            (values if side is case.value else baselines).append(side())
    value, baseline = statistics.median(values), statistics.median(baselines)
    ratio = value / baseline if baseline else float("nan")
    return {
        "case": case.name,
        "value": value,
        "baseline": baseline,
        "ratio": ratio,
        "unit": case.unit,
        "n": len(values),
    }


def run(cases: Iterable["Case"], settings: "Settings", only: str, path: Path) -> list[dict[str, Any]]:
    """Measure cases and write them; the file is complete after each case, so a long bench can be looked into."""
    rows: list[dict[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if only and only not in case.name:
            continue
        row = measure(case, settings.repeats)
        rows.append(row)
        say(f"{case.name}: {row['value']:.4g} / {row['baseline']:.4g} {row['unit']} = {row['ratio']:.3g}x")
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        scratch.replace(path)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd bench`` command."""

    def one(cfg: DictConfig) -> None:
        if cfg.bench not in names():
            raise UsageError(f"unknown bench '{cfg.bench}': {nearest(str(cfg.bench), names())}")
        import torch

        from experiments.benches.case import Settings

        torch.set_num_threads(cfg.threads)
        settings = Settings(cfg.repeats, cfg.threads, cfg.device, cfg.seed)
        path = Path(cfg.results_dir) / "bench" / f"{cfg.bench}.json"
        module = import_module(f"experiments.benches.{cfg.bench}")
        rows = run(module.cases(settings), settings, str(cfg.only or ""), path)
        print(f"{len(rows)} cases: {path}")

    return launch(one, "bench", "smd bench", argv)


if __name__ == "__main__":
    sys.exit(main())
