"""``smd bench bench=NAME``: measure speed, both sides of every case interleaved in one run.

A bench is a module of :mod:`experiments.benches` with ``cases(settings)``, a generator of cases; what a case needs (a
model, a process) lives while the generator waits, so a bench cleans up by ``with``.
"""

import json
import pkgutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from experiments import benches
from experiments.composing.app import launch
from experiments.composing.catalogue import columns, docline
from experiments.composing.overrides import UsageError, nearest
from smd_research.core.progress import say
from smd_research.core.whole_file import write_whole

if TYPE_CHECKING:
    from experiments.benches.case import Case, Modes, Settings


def names() -> list[str]:
    """The benches there are; a module whose name begins with an underscore only helps others."""
    found = [module.name for module in pkgutil.iter_modules(benches.__path__)]
    return sorted(name for name in found if name not in ("case", "measuring") and not name.startswith("_"))


def catalogue() -> str:
    """The benches with a line on each."""
    (folder,) = benches.__path__
    return columns((name, docline(Path(folder) / f"{name}.py")) for name in names())


def run(cases: Iterable["Case | Modes"], settings: "Settings", path: Path) -> tuple[list[dict[str, Any]], Path]:
    """Measure cases and write them.

    What is measured stands in ``NAME.json.part`` from the first case on, so that a long bench can be looked into. It
    takes the place of ``NAME.json`` at the end; a part of the cases (``only``) never replaces a file that is there.

    Returns:
        The rows, and where they were written.
    """
    from experiments.benches.measuring import measure
    from smd_research.records import environment

    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    part = path.with_name(f"{path.name}.part")
    for case in cases:
        if not settings.wants(case.name):
            continue
        for row in measure(case, settings.repeats):
            rows.append(row)
            beside = "" if row["baseline"] is None else f" / {row['baseline']:.4g} = {row['ratio']:.3g}x"
            say(f"{row['case']}: {row['value']:.4g}{beside} {row['unit']}")
        where = environment(settings.device, {"bench": time.perf_counter() - began})
        document = {"environment": where, "settings": asdict(settings), "cases": rows}
        write_whole(part, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    if rows and not (settings.only and path.exists()):
        return rows, part.replace(path)
    return rows, part


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd bench`` command."""

    def one(cfg: DictConfig) -> None:
        if OmegaConf.is_missing(cfg, "bench"):
            raise UsageError(f"bench=NAME is needed; there is\n{catalogue()}")
        if cfg.bench not in names():
            raise UsageError(f"unknown bench '{cfg.bench}': {nearest(str(cfg.bench), names())}")
        import torch

        from experiments.benches.case import Settings
        from smd_research.records.bench import bench_file

        torch.set_num_threads(cfg.threads)
        settings = Settings(cfg.repeats, cfg.threads, cfg.device, cfg.seed, cfg.size, str(cfg.only or ""))
        path = bench_file(Path(cfg.results_dir).expanduser(), cfg.bench, cfg.size)
        module = import_module(f"experiments.benches.{cfg.bench}")
        rows, written = run(module.cases(settings), settings, path)
        if not rows:
            raise UsageError(f"only={settings.only} is part of no case's name: leave it out to see which there are")
        print(f"{len(rows)} rows: {written}")

    return launch(one, "bench", "smd bench", argv)


if __name__ == "__main__":
    sys.exit(main())
