"""Which cell a point is of, and what people call its parts so that they tell it from its neighbours."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd

from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.records.frame import DEPLOYED, DESIGN
from smd_research.records.options import Label, labels_of
from smd_research.reports.epsilons import named

Labels: TypeAlias = Mapping[str, Label]

_PARTS = (*COMPONENTS, *OPTIONAL)
_SETTINGS = tuple(name for name in DESIGN if name.removesuffix("_params") not in _PARTS)
_ALWAYS_SHOWN = frozenset({"epsilon"})


@dataclass(frozen=True)
class Part:
    """One part of a cell: its name (empty where the cell has none), its options as sorted JSON, its version."""

    name: str
    options: str = "{}"
    version: int = 1

    @property
    def key(self) -> tuple[str, str]:
        """Name and options: equal for parts that differ in their version only."""
        return self.name, self.options


@dataclass(frozen=True)
class Design:
    """A cell as its record describes it.

    Attributes:
        parts: the model, data, defense, attack, link, task and tuning.
        settings: what else it ran with, e.g. ``{"seed": 0}``.
        deployed: JSON of what the defense chose when it was deployed; empty if unknown.
    """

    parts: Mapping[str, Part]
    settings: Labels
    deployed: str = ""

    @property
    def labels(self) -> Labels:
        """Names of parts, settings, and options as ``defense.epsilon``; an option left open is what was chosen."""
        labels: dict[str, Label] = {name: part.name for name, part in self.parts.items()}
        labels |= self.settings
        for name, part in self.parts.items():
            labels |= labels_of(name, part.options, self.deployed if name == "defense" else "")
        return labels

    def apart_from(self, *names: str) -> tuple[object, ...]:
        """What is left without some parts and settings: equal for cells that differ in nothing else but versions."""
        parts = [part.key for name, part in self.parts.items() if name not in names]
        return (*parts, *(value for name, value in self.settings.items() if name not in names))


NO_CELL = Design({}, {})
"""The design of what no cell left: a bench."""


def read_design(row: Mapping[Any, Any]) -> Design:
    """Read the design of a row of a frame, see :data:`smd_research.records.frame.COLUMNS`."""
    known = {name: value for name, value in row.items() if not pd.isna(value)}
    parts = {
        name: Part(known.get(name, ""), known.get(f"{name}_params", "{}"), int(row.get(f"{name}_version", 1)))
        for name in _PARTS
    }
    return Design(parts, {name: known.get(name) for name in _SETTINGS}, known.get(DEPLOYED, ""))


def tell_apart(parts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Label each pair of a name and options (JSON): the name, with the options in which others of it differ."""
    options = {(name, text): json.loads(text) for name, text in dict.fromkeys(parts)}
    differing: dict[str, set[str]] = {}
    for name, _ in options:
        kinds = [values for (other, _), values in options.items() if other == name]
        keys = {key for values in kinds for key in values}
        differing[name] = {key for key in keys if key in _ALWAYS_SHOWN or _differ(v.get(key) for v in kinds)}
    return {(name, text): _label(name, values, differing[name]) for (name, text), values in options.items()}


def _label(name: str, options: Mapping[str, object], keys: set[str]) -> str:
    set_to = [(key, options[key]) for key in sorted(keys) if options.get(key) is not None]
    shown = [f"{named(name, key, options)}={_text(value)}" for key, value in set_to]
    return " ".join([name, *shown])


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _differ(values: Iterable[object]) -> bool:
    return len({json.dumps(value, sort_keys=True) for value in values}) > 1
