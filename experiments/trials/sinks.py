"""Loggers: where a written record is sent besides its folder. A logger that fails costs a warning, never a record."""

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError
from smd_research.records import Record


def log(logger: Mapping[str, Any], record: Record, results_dir: Path) -> None:
    """Send a record to the chosen logger.

    Args:
        logger: its resolved configuration; ``name`` is ``none``, ``csv`` or ``wandb``.
        record: a written record.
        results_dir: where file-based loggers put their files.

    Raises:
        ConfigError: for an unknown logger.
    """
    name = str(logger.get("name", "none"))
    if name not in ("none", "csv", "wandb"):
        raise ConfigError(f"logger '{name}' is unknown: use none, csv or wandb")
    try:
        if name == "csv":
            write_csv(record, results_dir / "csv")
        elif name == "wandb":
            write_wandb(record, results_dir, project=str(logger["project"]), mode=str(logger["mode"]))
    except Exception as error:
        print(f"warning: logger={name} failed: {type(error).__name__}: {error}; the record is safe", file=sys.stderr)


def write_csv(record: Record, folder: Path) -> Path:
    """Write a record's metrics as one CSV file, named as the record's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.cell.readable}-{record.cell.id}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["metric", "mean", "low", "high", "n"])
        rows.writerows([name, e.mean, e.low, e.high, e.n] for name, e in record.metrics.items())
    return path


def write_wandb(record: Record, results_dir: Path, *, project: str, mode: str) -> None:
    """Log one cell as one run and finish it, so that the next cell of a sweep starts its own."""
    import wandb

    cell = record.cell
    run = wandb.init(
        project=project,
        name=cell.readable,
        group=str(cell.defense["name"]),
        job_type=str(cell.attack["name"]),
        config={"cell": cell.identity(), "cell_id": cell.id, "status": str(record.status), "reason": record.reason},
        mode=mode,  # type: ignore[arg-type]  # wandb itself refuses an unknown mode
        dir=str(results_dir),
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off"),
    )
    try:
        for name, estimate in record.metrics.items():
            run.summary[name] = estimate.mean
            run.summary[f"{name}/low"] = estimate.low
            run.summary[f"{name}/high"] = estimate.high
    finally:
        run.finish(exit_code=0 if record.status != "failed" else 1)
