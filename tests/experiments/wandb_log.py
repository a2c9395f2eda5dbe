"""What wandb wrote of a run: its log is in blocks of 32 KiB, a record in one or several pieces (LevelDB's format)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEAD, _BLOCK, _PIECE = 7, 32768, 7


def records(file: Path) -> Iterator[Any]:
    """The records of a ``run-ID.wandb`` file."""
    from wandb.proto import wandb_internal_pb2

    content, place, whole = file.read_bytes(), _HEAD, b""
    while place + _PIECE <= len(content):
        if _BLOCK - place % _BLOCK < _PIECE:  # too little is left of the block for a piece
            place += _BLOCK - place % _BLOCK
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + _PIECE : place + _PIECE + size]
        place += _PIECE + size
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def runs(results_dir: Path) -> list[Any]:
    """The run of every folder under ``wandb/``, by name, with its summary and what it shows beside.

    Folders have the second in their name, which several runs may share.
    """
    found = [_run(file) for file in (results_dir / "wandb").glob("*/run-*.wandb")]
    return sorted(found, key=lambda run: run["name"])


def _run(file: Path) -> Any:
    found: dict[str, Any] = {"summary": {}, "shown": {}, "files": sorted(str(p) for p in file.parent.rglob("*"))}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config = {item.key: json.loads(item.value_json) for item in run.config.update}
            found |= {"id": run.run_id, "name": run.display_name, "group": run.run_group, "tags": list(run.tags)}
            found |= {"job_type": run.job_type, "host": run.host, "config": config}
        elif kind == "summary":
            for item in record.summary.update:
                found["summary"]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        elif kind == "history":
            for item in record.history.item:
                found["shown"][".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found
