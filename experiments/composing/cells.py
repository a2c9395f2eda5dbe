"""From a composed configuration to the cell it names and the plan to run it."""

import hashlib
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from experiments.composing.checking import IdleOptionWarning, check, configured, idle
from experiments.composing.components import counted_options, version_of
from experiments.composing.composition import composition
from experiments.composing.geometry import EMBEDDED
from experiments.composing.parts import parts_of
from experiments.composing.products import key_of
from experiments.composing.smoke import bring_down
from experiments.trials.plan import Plan
from smd_research.core.cell import COMPONENTS, OPTIONAL, Cell

if TYPE_CHECKING:
    from smd_research.records.store import Rerun

WHOLE_FILE_BYTES = 64 * 2**20
EDGE_BYTES = 2**20
DATA_SUFFIXES = (".jsonl", ".csv", ".txt")


def plan(values: Mapping[str, Any], choices: Mapping[str, Any], overrides: Sequence[str]) -> Plan:
    """What a composed configuration asks for.

    Args:
        values: all of a composed run configuration.
        choices: which option each group chose, as Hydra records it.
        overrides: the words that make this cell again after ``smd run``.
    """
    kinds = COMPONENTS if values.get("task") is None else (*COMPONENTS, *OPTIONAL)
    parts: dict[str, dict[str, Any]] = {kind: values[kind] for kind in kinds}
    chosen = {kind: str(choices.get(kind, "none")) for kind in kinds}
    held: dict[str, Any] = {
        **{kind: named(counted_options(parts[kind]), chosen[kind]) for kind in kinds},
        **sizes(values, parts.get("task")),
    }
    cell = Cell(
        **held,
        seed=values["seed"],
        dtype=values["dtype"],
        wire_dtype=values["wire_dtype"],
        transport=values["transport"],
        versions=versions(parts, chosen),
        device=values["device"],
        command=command_of(overrides),
    )
    return Plan(
        cell,
        parts_of(parts, cell.device, values["dtype"]),
        Path(values["results_dir"]).expanduser(),
        values["rerun"],
        values["logger"],
        values["threads"],
        partial(beside, list(overrides), values["rerun"]),
        values["address"],
        values["trainer"],
        values["record_texts"],
    )


def command_of(overrides: Sequence[str]) -> str:
    """The command that runs a cell again, without the folder that its record went to, which is each reader's own."""
    return " ".join(["smd run", *(shlex.quote(word) for word in overrides if not word.startswith("results_dir="))])


def versions(parts: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, str]) -> dict[str, int]:
    """The version of each part that states one; of a task only above 1, so that records from before keep their ids."""
    found = {kind: version_of(parts[kind], chosen) for kind in ("defense", "attack")}
    task = version_of(parts.get("task", {}), chosen)
    return found | ({"task": task} if task > 1 else {})


def sizes(values: Mapping[str, Any], task: Mapping[str, Any] | None) -> dict[str, int | None]:
    """How many texts are evaluated and how long they are; a task says so itself, and nothing is generated."""
    if task is not None:
        return {"n_prompts": task["evaluation"], "prompt_tokens": task["tokens"], "max_new_tokens": 0}
    return {name: values[name] for name in ("n_prompts", "prompt_tokens", "max_new_tokens", "held_out")}


def composed(overrides: Sequence[str]) -> Plan:
    """Compose a cell inside a command that Hydra has started.

    Raises:
        UsageError: a value cannot be.
    """
    cfg, choices = composition(overrides)
    return effective(check(bring_down(cfg)), choices, overrides)


def effective(values: Mapping[str, Any], choices: Mapping[str, Any], overrides: Sequence[str]) -> Plan:
    """The plan of a composed cell without the words that have no effect in it, each of which is warned of.

    Args:
        values: all of a composed run configuration, checked.
        choices: which option each group chose.
        overrides: the words that composed it, as :func:`plan`.
    """
    void = idle(values, overrides)
    for word, reason in void.items():
        warnings.warn(f"{word} has no effect and is left out: it counts with {reason}", IdleOptionWarning, stacklevel=2)
    if void:
        cfg, choices = composition([word for word in overrides if word not in void])
        values = configured(bring_down(cfg))
    kept = [word for word in overrides if word not in void and not word.startswith("rerun=")]
    return plan(values, choices, kept)


def beside(overrides: Sequence[str], rerun: "Rerun", changed: Sequence[str]) -> Plan:
    """The plan of a cell that differs in some overrides; choosing another option of a part drops that part's own."""
    keys = {key_of(word) for word in changed}
    kept = [word for word in overrides if key_of(word) not in keys and key_of(word).partition(".")[0] not in keys]
    policy: Rerun = "missing" if rerun in ("missing", "never") else "failed"
    return replace(composed([*kept, *changed]), rerun=policy)


def values_of(node: DictConfig) -> dict[str, Any]:
    """A node of a composed configuration as a dictionary, resolved.

    Raises:
        MissingMandatoryValue: an option is not given that has to be.
    """
    values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def named(options: Mapping[str, Any], choice: str) -> dict[str, Any]:
    """A component as a cell holds it: its options, its name, and the digest of what its path holds."""
    shown = dict(options)
    if "name" not in shown:
        path = Path(str(shown.get("path") or ""))
        kind = shown.get("family") or (path.stem if path.suffix in DATA_SUFFIXES else path.name)
        shown["name"] = f"{choice}-{kind}" if kind else choice
    place = EMBEDDED if str(shown.get("_target_", "")).endswith(".embedded") else shown.get("path")
    places = [place] if place else [shown[key] for key in sorted(shown) if key.endswith("_path") and shown[key]]
    if places:
        shown["sha256"] = "".join(digest(Path(str(one)).expanduser()) for one in places)
    return shown


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files; empty when there is nothing.

    Of files above 64 MiB the size and the first and last MiB count, so that asking whether a cell is known stays quick.
    """
    files = [path] if path.is_file() else sorted(file for file in path.glob("*") if file.is_file())
    if not files:
        return ""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name if path.is_dir() else ''}\0".encode())
        total.update(_content_digest(file, file.stat().st_size, file.stat().st_mtime_ns))
    return total.hexdigest()[:16]


@lru_cache(maxsize=64)
def _content_digest(file: Path, size: int, changed_ns: int) -> bytes:
    """Digest of a file's content; asked once for each state of the file, not once for each cell of a sweep."""
    total = hashlib.sha256(f"{size}\0".encode())
    with file.open("rb") as content:
        if size <= WHOLE_FILE_BYTES:
            total.update(content.read())
        else:
            total.update(content.read(EDGE_BYTES))
            content.seek(size - EDGE_BYTES)
            total.update(content.read())
    return total.digest()
