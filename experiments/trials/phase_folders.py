"""Where the phases of a tuned cell keep their state, and that one run at a time works on a phase.

A phase has a folder under ``<results_dir>/work``, named by what makes the phase: a command that was killed goes on from
there, and cells that differ in the attack alone share it, also when they run side by side.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.trials.plan import Plan
from smd_research.core.progress import say

_OF_TEXTS = frozenset({"fresh_epsilon"})
"""Options of a defense that concern what is sent, not the model that is handed over."""


def makes_implant(plan: Plan) -> Mapping[str, Any]:
    """The part of a cell's identity that makes the client's model."""
    whole, versions = plan.cell.identity(), _versions(plan)
    parts = {name: whole[name] for name in ("model", "data", "seed", "dtype", "prompt_tokens")}
    options = {k: v for k, v in whole["defense"]["parameters"].items() if k not in _OF_TEXTS}
    parts["defense"] = {**whole["defense"], "parameters": options}
    return {**parts, "task": whole["task"]["name"], "versions": versions}


def makes_tuned(plan: Plan) -> Mapping[str, Any]:
    """The part of a cell's identity that makes a tuned model and its answers, whoever attacks."""
    whole, versions = plan.cell.identity(), _versions(plan)
    return {**{k: v for k, v in whole.items() if k not in ("attack", "link")}, "versions": versions}


MAKES = {"implant": makes_implant, "tune": makes_tuned}


@contextmanager
def held(plan: Plan, phase: str) -> Iterator[Path]:
    """The folder of a phase, while no other run works there; emptied for a run that is to start over.

    The system lets go of the lock when its holder dies.
    """
    text = json.dumps(MAKES[phase](plan), sort_keys=True)
    folder = plan.results_dir / "work" / f"{phase}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"  another run is busy with {folder}: waiting for it")
        lock.acquire()
    try:
        if plan.rerun == "always":
            shutil.rmtree(folder, ignore_errors=True)
        yield folder
    finally:
        lock.release()


def _versions(plan: Plan) -> dict[str, int]:
    """Of all parts but the attack, which comes after."""
    return {"defense": 1} | {kind: version for kind, version in plan.cell.versions.items() if kind != "attack"}
