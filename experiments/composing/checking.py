"""A composed configuration, checked before anything heavy is loaded: what there is, each value, what goes together."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.composing.components import conditions, options_of
from experiments.composing.conditions import Condition
from experiments.composing.geometry import bounds, chats
from experiments.composing.overrides import UsageError, groups, nearest
from experiments.composing.settings import NEEDS, ONLY, SETTINGS
from experiments.composing.signatures import ValueKind, parameters
from experiments.composing.values import Bounds, Takes, shown
from smd_research.core.cell import COMPONENTS
from smd_research.core.paths import conf_dir
from smd_research.core.wrapper import NO_TEMPLATE


class IdleOptionWarning(UserWarning):
    """A word that sets what has no effect in the cell it makes."""


MISSING = "???"
PARTS = (*COMPONENTS, "logger", "tuning", "task", "architecture")
NO_TASK = ("task", None)
_GIVEN = {"model": ("device", "dtype")}
"""Parameters of a constructor that stand elsewhere in the configuration."""


def check(cfg: DictConfig) -> dict[str, Any]:
    """Refuse a configuration that cannot be.

    Returns:
        All that is configured, as :func:`configured`.

    Raises:
        UsageError: naming an option, its value and how to mend it.
        MissingMandatoryValue: a value is not given that has to be.
    """
    values = configured(cfg)
    settings = {name: values[name] for name in SETTINGS if values.get(name, MISSING) != MISSING}
    chosen = [kind for kind in PARTS if kind in values and (kind, values[kind]) != NO_TASK]
    parts = {kind: _part(cfg, kind, values[kind]) for kind in chosen}
    known = bounds(parts.get("model", {}))
    for name, value in settings.items():
        if wrong := SETTINGS[name].wrong(value, known):
            raise UsageError(_line(name, value, wrong))
    _go_together("", NEEDS, {**settings, "task": "given" if "task" in parts else None})
    for kind, node in parts.items():
        check_part(kind, node, known)
    if parts.get("data", {}).get("chat") and "task" not in parts and chats(parts["model"]) is False:
        raise UsageError(NO_TEMPLATE)
    return values


def idle(values: Mapping[str, Any], words: Sequence[str]) -> dict[str, str]:
    """The words among some that set what has no effect in this cell, each with what it would count with."""
    found: dict[str, str] = {}
    for word in words:
        kind, _, option = word.partition("=")[0].lstrip("+").partition(".")
        node = values.get(kind)
        part = node if isinstance(node, dict) else {}
        only = (part.get("only") or {}).get(option)
        here = ONLY.get(kind) or ONLY.get(f"{kind}.{option}")
        for group, options, said in (("", values, here), (kind, part, only)):
            unmet = [one for one in conditions(said) if not one.holds(options)] if said else []
            if unmet:
                found[word] = unmet[0].said(group)
    return found


def configured(cfg: DictConfig) -> dict[str, Any]:
    """All that is configured, resolved, with ``MISSING`` for what is not given yet."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _part(cfg: DictConfig, kind: str, node: Any) -> dict[str, Any]:
    """A part of a command.

    Raises:
        UsageError: it is no part.
        MissingMandatoryValue: an option is not given that has to be.
    """
    if not isinstance(node, dict):
        raise UsageError(f"{kind}={shown(node)}: choose one of {', '.join(groups(conf_dir()).get(kind, []))}")
    if MISSING in node.values():
        OmegaConf.to_container(cfg[kind], throw_on_missing=True)
    return node


def check_part(kind: str, node: Mapping[str, Any], known: Bounds) -> None:
    """Refuse options of one part that cannot be, by its constructor's annotations and by what its YAML says of them.

    Args:
        kind: which part, as errors call it.
        node: its ``_target_``, options and notes.
        known: of the model.

    Raises:
        UsageError: naming an option, its value and how to mend it.
    """
    taken = _taken(kind, node)
    siblings = {name.upper(): value for name, value in node.items() if isinstance(value, int | float)}
    for name, value in options_of(node).items():
        if name.startswith("_"):
            continue
        if taken and name not in taken:
            raise UsageError(f"unknown key '{kind}.{name}': {nearest(name, taken)}")
        words = str((node.get("takes") or {}).get(name, ""))
        if wrong := Takes(taken.get(name, ValueKind()), words).wrong(value, {**siblings, **known}):
            raise UsageError(_line(f"{kind}.{name}", value, wrong))
    _go_together(kind, node.get("needs") or {}, node)


def _taken(kind: str, node: Mapping[str, Any]) -> dict[str, ValueKind]:
    """The kinds of a constructor's parameters; none where there is no constructor, or its source cannot be read.

    Raises:
        UsageError: a parameter that has to be given is not.
    """
    found = parameters(str(node["_target_"])) if node.get("_target_") else None
    for name, parameter in (found or {}).items():
        if parameter.required and name not in node and name not in _GIVEN.get(kind, ()):
            raise UsageError(f"{kind} needs {kind}.{name}=VALUE")
    return {name: parameter.kind for name, parameter in (found or {}).items()}


def _go_together(group: str, needs: Mapping[str, str | Sequence[str]], options: Mapping[str, Any]) -> None:
    for said, asked in needs.items():
        when = Condition.of(str(said))
        for one in conditions(asked) if when.holds(options) else ():
            if one.name in options and not one.holds(options):
                found = shown(options[one.name])
                raise UsageError(f"{when.said(group)} needs {one.said(group)}, which is {found} here")


def _line(name: str, value: Any, wrong: str) -> str:
    return f"{name}={shown(value)}{' ' if wrong.startswith('is ') else ': '}{wrong}"
