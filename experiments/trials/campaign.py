"""The command that a cell belongs to: what groups its cells, what tells them apart, and what one is then called."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from smd_research.core.cell import COMPONENTS, OPTIONAL, Cell, component_name, parameters

if TYPE_CHECKING:
    from smd_research.records import Record

KEY = "campaign"
"""Where the environment of a record holds it."""

_IN_READABLE = frozenset({"model", "data", "defense", "attack", "task", "seed"})


@dataclass(frozen=True)
class Campaign:
    """A sweep, a table, or a single run.

    Attributes:
        group: what its cells are gathered under; the same whenever the command is given again.
        varied: the keys in which its cells differ, as one writes them, e.g. ``defense.survival``; of a single run those
            that were given.
        single: whether it is a single run, which then goes by all that it is rather than by what varies.
    """

    group: str
    varied: tuple[str, ...] = ()
    single: bool = False

    def noted(self, record: "Record") -> "Record":
        """A record that says which command it belongs to."""
        return replace(record, environment={**record.environment, KEY: asdict(self)})


def campaign_of(record: "Record") -> Campaign:
    """The command that a record belongs to; a single run where it names none."""
    said = record.environment.get(KEY)
    if isinstance(said, Mapping) and isinstance(said.get("varied"), list | tuple):
        return Campaign(str(said.get("group")), tuple(map(str, said["varied"])))
    try:
        words = shlex.split(record.cell.command)
    except ValueError:  # of another version, or another hand
        words = []
    given = (word.partition("=")[0].lstrip("+~") for word in words if "=" in word)
    return Campaign(f"run {record.cell.readable}", tuple(given), single=True)


def title_of(record: "Record") -> str:
    """What a record's cell is called among those of its command.

    In a sweep that is the defense and what was swept, ``dp_text attack=bayes_token defense.survival=0.3``; of a single
    run the cell's readable name and the options that were given.
    """
    cell, campaign = record.cell, campaign_of(record)
    said = _IN_READABLE if campaign.single else {"defense"}
    words = dict.fromkeys(word for key in campaign.varied if (word := spoken(cell, key)))
    head = cell.readable if campaign.single else component_name(cell.defense)
    return " ".join([head, *(word for word in words if word.partition("=")[0] not in said)])


def spoken(cell: Cell, key: str) -> str:
    """A key with its value in a cell, e.g. ``defense.survival=0.3``; empty for what is no part of it.

    A path is spoken of by the name of the part that it belongs to.
    """
    part, _, option = key.partition(".")
    if part not in (*COMPONENTS, *OPTIONAL):
        return f"{key}={_written(cell.identity()[key])}" if key in cell.identity() else ""
    component = getattr(cell, part)
    if component is None:
        return ""
    if not option or option == "name" or option.endswith("path"):
        return f"{part}={component_name(component)}"
    value: Any = parameters(component)
    for name in option.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return ""
        value = value[name]
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
