"""Loggers: where a written record is sent besides its folder. A logger that fails costs a warning, never a record."""

import csv
import io
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smd_research.core.errors import ConfigError
from smd_research.core.whole_file import write_whole

if TYPE_CHECKING:
    from smd_research.records import Record

NAMES = ("none", "csv", "wandb")


def log(logger: Mapping[str, Any], record: "Record", results_dir: Path) -> bool:
    """Send a record to the chosen logger: the one way, when its cell was run and later.

    Args:
        logger: its resolved configuration; ``name`` is ``none``, ``csv`` or ``wandb``.
        record: a written record.
        results_dir: where file-based loggers put their files.

    Returns:
        Whether it took the record; where it did not, a warning says why.

    Raises:
        ConfigError: for an unknown logger.
    """
    name = str(logger.get("name", "none"))
    if name not in NAMES:
        raise ConfigError(f"logger '{name}' is unknown: use none, csv or wandb")
    try:
        if name == "csv":
            write_csv(record, results_dir / "csv")
        elif name == "wandb":
            from experiments.trials.wandb_runs import push

            push(record, results_dir, project=str(logger["project"]), mode=str(logger["mode"]))
    except Exception as error:
        print(f"warning: logger={name} failed: {type(error).__name__}: {error}; the record is safe", file=sys.stderr)
        return False
    return True


def sync_command(logger: Mapping[str, Any], results_dir: Path) -> str:
    """What sends on what a logger kept on this machine; empty where it kept nothing."""
    if logger.get("name") != "wandb" or logger.get("mode") != "offline":
        return ""
    return f"wandb sync {shlex.quote(str(results_dir / 'wandb'))}/offline-run-*"


def write_csv(record: "Record", folder: Path) -> Path:
    """Write a record's metrics as one CSV file, named as the record's folder."""
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["metric", "mean", "low", "high", "n"])
    rows.writerows([name, e.mean, e.low, e.high, e.n] for name, e in record.metrics.items())
    return write_whole(folder / f"{record.cell.readable}-{record.cell.id}.csv", file.getvalue().encode())
