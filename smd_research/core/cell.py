"""A cell: one point of the grid model x data x defense x attack x link x settings, and its identity.

Two commands that would give the same privacy and utility numbers are the same cell. Its identity is the SHA-256 of the
canonical JSON of everything that can change those numbers and of nothing else: the log level, the device, the output
folder and the logger are left out. The transport and the link are part of it although they move no privacy number,
because a record also holds timings, and those of two transports must never overwrite each other.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError

ID_VERSION = 1
"""Raised when the identity algorithm itself changes, so that old records are never mistaken for new ones."""

RUNTIME_KEYS = frozenset({"device", "num_workers", "progress", "timeout_s"})
"""Options of a component that cannot change a number, wherever they stand."""

_IDENTITY = {"role": "identity"}
_WHERE_GIVEN = {"role": "identity", "optional": True}
_RUNTIME = {"role": "runtime"}


def _nothing() -> dict[str, Any]:
    return {"name": "none"}


def plain(value: Any, where: str = "cell") -> Any:
    """Reduce a resolved configuration to plain JSON values, one spelling for each value.

    Tuples become lists, enums their value, paths strings with the home folder written ``~``, and floats that are whole
    numbers integers, so that ``epsilon=8`` and ``epsilon=8.0`` name the same cell.

    Raises:
        ConfigError: for values that JSON cannot hold (NaN, infinities, objects).
    """
    if isinstance(value, Enum):
        return plain(value.value, where)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where}: {value} cannot be part of a cell; give a finite number")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, str | Path):
        return without_home(str(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, where) for item in value), key=str)
    raise ConfigError(f"{where}: a {type(value).__name__} cannot be part of a cell; give plain values")


def without_home(text: str) -> str:
    """A text in which paths under the home folder begin with ``~``: records are shared, home folders name people."""
    home = str(Path("~").expanduser()).rstrip("/")
    return re.sub(rf"(?<![\w.~/-]){re.escape(home)}(?=/|\s|$)", "~", text) if home else text


def component_name(component: Mapping[str, Any]) -> str:
    """The name of a part: its ``name``, else the last word of its ``_target_``."""
    name = component.get("name") or str(component.get("_target_", "none")).rpartition(".")[2]
    return str(name)


def parameters(component: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a part that belong to its identity.

    Hydra's own keys (``_target_``, ...) are left out, so that moving a class invalidates nothing: its ``version`` does.
    A ``path`` (or ``train_path``, ...) is left out where the ``sha256`` of its content is given, so that a moved file
    keeps its records.
    """
    hidden = RUNTIME_KEYS | {"name"}
    if component.get("sha256"):
        hidden |= {key for key in component if key == "path" or key.endswith("_path")}
    return {key: value for key, value in component.items() if key not in hidden and not key.startswith("_")}


@dataclass(frozen=True)
class Cell:
    """One experiment: what is run, under which settings, from which seed.

    Attributes:
        model: resolved configuration of the model: its ``name`` (or ``_target_``) and options.
        data: the same of the data.
        defense: the same of the defense.
        attack: the same of the attack; ``{"name": "none"}`` where nobody attacks.
        link: the same of the modelled link.
        n_prompts: prompts of the evaluation set that are run.
        max_new_tokens: tokens generated for each prompt.
        prompt_tokens: prompts are cut to this many tokens; None leaves them whole.
        seed: root of every random generator of the cell.
        dtype: arithmetic of the model.
        wire_dtype: arithmetic of tensors that cross the boundary.
        transport: ``inproc``, ``process`` or ``tcp``; see the module text for why it counts.
        versions: integer version of each component by kind, e.g. ``{"attack": 2}``; raised when its numbers may change.
        task: the same of the downstream task that the model is tuned on, with ``data`` as public text; None: no tuning.
        tuning: the same of how it is tuned; None without a task.
        held_out: documents on which restored weights are scored; None: as many as the runner has for it.
        device: where the model ran; recorded, not identity.
        command: the command that runs this cell again; recorded, not identity.
    """

    model: Mapping[str, Any] = field(metadata=_IDENTITY)
    data: Mapping[str, Any] = field(metadata=_IDENTITY)
    defense: Mapping[str, Any] = field(metadata=_IDENTITY)
    attack: Mapping[str, Any] = field(default_factory=_nothing, metadata=_IDENTITY)
    link: Mapping[str, Any] = field(default_factory=_nothing, metadata=_IDENTITY)
    n_prompts: int = field(default=1, metadata=_IDENTITY)
    max_new_tokens: int = field(default=0, metadata=_IDENTITY)
    prompt_tokens: int | None = field(default=None, metadata=_IDENTITY)
    seed: int = field(default=0, metadata=_IDENTITY)
    dtype: str = field(default="fp32", metadata=_IDENTITY)
    wire_dtype: str = field(default="fp32", metadata=_IDENTITY)
    transport: str = field(default="inproc", metadata=_IDENTITY)
    versions: Mapping[str, int] = field(default_factory=dict, metadata=_IDENTITY)
    task: Mapping[str, Any] | None = field(default=None, metadata=_WHERE_GIVEN)
    tuning: Mapping[str, Any] | None = field(default=None, metadata=_WHERE_GIVEN)
    held_out: int | None = field(default=None, metadata=_WHERE_GIVEN)
    device: str = field(default="cpu", metadata=_RUNTIME)
    command: str = field(default="", metadata=_RUNTIME)

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, plain(getattr(self, item.name), item.name))

    def __hash__(self) -> int:
        return hash(self.digest)

    def identity(self) -> dict[str, Any]:
        """Everything that can change the cell's numbers, as plain JSON values; without a task there is none of it."""
        parts: dict[str, Any] = {"id_version": ID_VERSION}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.metadata["role"] != "identity" or (value is None and item.metadata.get("optional")):
                continue
            if item.name in (*COMPONENTS, *OPTIONAL):
                value = {"name": component_name(value), "parameters": parameters(value)}
            parts[item.name] = value
        return parts

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of :meth:`identity`, 64 hexadecimal digits."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def id(self) -> str:
        """The first 16 digits of the digest: short enough for a folder name, long enough never to collide."""
        return self.digest[:16]

    @property
    def readable(self) -> str:
        """What a person reads in the folder name, e.g. ``smd-partial_attention_inversion-embedded-synthetic-s0``.

        A task stands in the place of the data.
        """
        parts = [component_name(part) for part in (self.defense, self.attack, self.model, self.task or self.data)]
        words = [re.sub(r"[^A-Za-z0-9_.]+", "_", part).strip(".")[:48] or "none" for part in parts]
        return "-".join([*words, f"s{self.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain values, for ``config.yaml`` and ``metrics.json``."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cell":
        """The inverse of :meth:`to_dict`; unknown keys are ignored, so later versions stay readable.

        Raises:
            ConfigError: when a required part is missing.
        """
        known = {item.name for item in fields(cls)}
        missing = [name for name in ("model", "data", "defense") if not isinstance(values.get(name), Mapping)]
        if missing:
            raise ConfigError(f"a cell needs {', '.join(missing)}")
        return cls(**{key: value for key, value in values.items() if key in known})


COMPONENTS = ("model", "data", "defense", "attack", "link")
"""The parts of a cell that carry a name and options."""

OPTIONAL = ("task", "tuning")
"""Parts that only some cells have."""
