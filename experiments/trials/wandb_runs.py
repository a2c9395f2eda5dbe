"""A record as a run of Weights & Biases: numbers and a picture of them, never a text, and nothing of this machine.

The id of a run is that of its cell, so that a project holds a cell once, and sending it again replaces it. What wandb
would say of the machine is turned off where it can be, and its own logs, which are full of paths, are removed. Texts
are left out even where the record has them: a page that others read is no place for them.
"""

import io
import math
import shutil
from pathlib import Path
from typing import Any

from experiments.trials.campaign import campaign_of, title_of
from smd_research.core.cell import COMPONENTS, OPTIONAL, component_name
from smd_research.core.errors import RecordError
from smd_research.core.quoting import without_paths
from smd_research.records import Record, read_items
from smd_research.reports.figures.headline import headline_figure

LONGEST_TAG = 64

_SILENT = {
    **{"silent": True, "console": "off", "symlink": False, "program": "smd", "host": "", "username": ""},
    **{"disable_git": True, "disable_code": True, "save_code": False},
    **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False},
}
"""Settings under which wandb says nothing of the machine, the user, the sources or the command line."""


def push(record: Record, results_dir: Path, *, project: str, mode: str) -> None:
    """Send one cell as one run and finish it, so that the next cell starts its own.

    Args:
        record: of a cell that ended in whatever way.
        results_dir: ``wandb/`` is made in it.
        project: in which the run appears.
        mode: ``online``, ``offline`` or ``disabled``.
    """
    import wandb

    cell = record.cell
    for earlier in _folders(results_dir, cell.id) if mode != "disabled" else []:  # the run that this one replaces
        shutil.rmtree(earlier, ignore_errors=True)
    run = wandb.init(
        project=project,
        id=cell.id,
        name=without_paths(title_of(record)),
        group=without_paths(campaign_of(record).group),
        job_type=component_name(cell.attack),
        tags=tags(record),
        config=without_paths(described(record)),
        mode=mode,  # type: ignore[arg-type]  # wandb itself refuses an unknown mode
        dir=str(results_dir.resolve()),  # its server may stand in another folder
        reinit="finish_previous",
        settings=wandb.Settings(**_SILENT),
    )
    try:
        run.summary.update(numbers(record))
        if shown := _shown(record, run):
            run.log(shown)
    finally:
        run.finish(exit_code=0 if record.status != "failed" else 1)
        for folder in _folders(results_dir, cell.id):
            for name in ("logs", "tmp"):
                shutil.rmtree(folder / name, ignore_errors=True)


def tags(record: Record) -> list[str]:
    """Its parts and how it ended, as one writes them: ``defense=smd``, ``status=ok``."""
    parts = {part: getattr(record.cell, part) for part in (*COMPONENTS, *OPTIONAL)}
    named = {part: component_name(component) for part, component in parts.items() if component is not None}
    told = [f"{part}={name}" for part, name in named.items() if part not in ("link", "tuning")]
    return [without_paths(tag)[:LONGEST_TAG] for tag in (*told, f"status={record.status}")]


def described(record: Record) -> dict[str, Any]:
    """The configuration of the run: what the cell is, and how it ended."""
    return {
        "cell": record.cell.identity(),
        "cell_id": record.cell.id,
        "status": str(record.status),
        "reason": record.reason,
        "guarantee": str(record.environment.get("guarantee", "")),
    }


def numbers(record: Record) -> dict[str, float]:
    """Every metric, with the ends of its interval."""
    found = {
        f"{name}{end}": value
        for name, estimate in record.metrics.items()
        for end, value in (("", estimate.mean), ("/low", estimate.low), ("/high", estimate.high))
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def item_rows(record: Record) -> tuple[list[str], list[list[str | float | None]]]:
    """Columns and rows of the table of items: name, source and length of each prompt, and all of its scores."""
    items = read_items(record.items)
    names = list(dict.fromkeys(name for item in items for name in item.metrics))
    rows: list[list[str | float | None]] = [
        [item.prompt_id, item.source, item.length or None, *(_finite(item.metrics.get(name)) for name in names)]
        for item in items
    ]
    return ["prompt", "source", "length", *names], rows


def _shown(record: Record, run: Any) -> dict[str, Any]:
    """The table and the picture, where there is anything to show."""
    import wandb
    from PIL import Image

    shown: dict[str, Any] = {}
    columns, rows = item_rows(record)
    if rows:
        table = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
        # Bound by hand it is a file of the run; else it is an artifact, which says where on this machine it was staged.
        table.bind_to_run(run, "items", 0)
        shown["items"] = table
    try:
        figure = headline_figure(record)
    except RecordError:  # there are no numbers
        return shown
    picture = io.BytesIO()
    figure.savefig(picture, dpi=160, format="png", metadata={"Software": None})
    shown["numbers"] = wandb.Image(Image.open(picture))
    return shown


def _folders(results_dir: Path, run_id: str) -> list[Path]:
    return [path for path in (results_dir / "wandb").glob(f"*run-*-{run_id}") if path.is_dir()]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
