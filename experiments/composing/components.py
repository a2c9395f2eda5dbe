"""What a component's YAML says of itself beside the options of its constructor.

``version`` is raised when a change to the code may change the component's numbers; none is 1. ``later`` holds options
that came when the component had records already, each with the value that leaves its numbers as those records have
them: with that value an option is no part of the cell, so that the records keep their ids::

    _target_: attacks.somewhere.Somebody
    version: 2
    later: { reply: mga }
    steps: 100
    reply: mga # mga | mg: which parts of a reply are read
"""

from collections.abc import Mapping
from typing import Any

from smd_research.core.cell import plain
from smd_research.core.errors import ConfigError

NOTES = ("version", "later")


def options_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a component is built from, and its ``_target_``."""
    return {key: value for key, value in node.items() if key not in NOTES}


def counted_options(node: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a cell holds: all but those of ``later`` that have the value of the time before them.

    Raises:
        ConfigError: ``later`` names something that is no option.
    """
    options, later = options_of(node), node.get("later") or {}
    for key in later:
        if key not in options:
            raise ConfigError(f"{node.get('_target_')}: later names '{key}', which is none of its options")
    return {key: value for key, value in options.items() if key not in later or plain(value) != plain(later[key])}


def version_of(node: Mapping[str, Any]) -> int:
    """The version of a component; 1 where it states none.

    Raises:
        ConfigError: it is not a whole number of 1 or more.
    """
    stated = node.get("version", 1)
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        raise ConfigError(f"{node.get('_target_')}: version is a whole number of 1 or more, not {stated}")
    return stated
