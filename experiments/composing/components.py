"""What a component's YAML says of itself beside the options of its constructor.

``version`` is raised when a change to the code may change the component's numbers; none is 1. ``later`` holds options
that came when the component had records already, each with the value that leaves its numbers as those records have
them: with that value an option is no part of the cell, so that the records keep their ids::

    _target_: attacks.somewhere.Somebody
    version: 2
    later: { reply: mga }
    takes: { steps: 1 or more, reply: mga | mg }
    only: { share: mode=beam, width: [mode=beam, steps above 1] }
    needs: { mode=beam: prior }
    steps: 100
    reply: mga # which parts of a reply are read

``unchanged`` lists, option by option, the values for which the last raise changed no number: a cell whose options are
all among them is of the version before, so that its records keep their ids too::

    version: 2
    unchanged: { noise: [0.0], reply: [mga, mg] }

``changed`` lists, part by part, beside which options of theirs alone the last raise changed a number; beside any other
the cell is of the version before::

    version: 3
    changed: { defense: [dp_hidden, split_denoise] }

``takes`` says what a value may be beside its type, which is the constructor's annotation
(:mod:`experiments.composing.values`); ``only`` when an option counts: where it does not, a word that sets it is left
out and said; ``needs`` what goes together (:mod:`experiments.composing.conditions`); ``cites`` the papers that it comes
from (:mod:`experiments.composing.citing`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.composing.catalogue import NOTES
from experiments.composing.conditions import Condition
from smd_research.core.cell import plain
from smd_research.core.errors import ConfigError

NO_PARTS: Mapping[str, str] = {}


def options_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a component is built from, and its ``_target_``."""
    return {key: value for key, value in node.items() if key not in NOTES}


def counted_options(node: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a cell holds: all but those of ``later`` that have the value of the time before them.

    Raises:
        ConfigError: ``later`` names something that is no option.
    """
    options, later = options_of(node), _noted(node, "later")
    return {key: value for key, value in options.items() if key not in later or plain(value) != plain(later[key])}


def conditions(said: str | Sequence[str]) -> list[Condition]:
    """One condition or several, of which all have to hold."""
    return [Condition.of(one) for one in ([said] if isinstance(said, str) else said)]


def version_of(node: Mapping[str, Any], beside: Mapping[str, str] = NO_PARTS) -> int:
    """The version of a component with its options as they are; 1 where it states none.

    Args:
        node: the component's.
        beside: what the cell chose of its parts, by part.

    Raises:
        ConfigError: it is not a whole number of 1 or more, or ``unchanged`` names something that is no option.
    """
    stated = node.get("version", 1)
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        raise ConfigError(f"{node.get('_target_')}: version is a whole number of 1 or more, not {stated}")
    unchanged = _noted(node, "unchanged")
    as_before = bool(unchanged) and all(plain(node[key]) in plain(values) for key, values in unchanged.items())
    changed: Mapping[str, Sequence[str]] = node.get("changed") or {}
    elsewhere = bool(beside) and any(beside[part] not in names for part, names in changed.items())
    return stated - 1 if as_before or elsewhere else stated


def _noted(node: Mapping[str, Any], note: str) -> Mapping[str, Any]:
    """What a note says of options.

    Raises:
        ConfigError: it names something that is no option.
    """
    noted: Mapping[str, Any] = node.get(note) or {}
    for key in noted:
        if key not in options_of(node):
            raise ConfigError(f"{node.get('_target_')}: {note} names '{key}', which is none of its options")
    return noted
