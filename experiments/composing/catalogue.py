"""What there is to choose from, in the words of the configuration's own comments."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_VALUE = re.compile(r"^(\w+):\s*(.*?)\s*(?:(?<=\s)#\s*(.*))?$")
NOTES = ("version", "later", "unchanged", "changed", "takes", "only", "needs", "cites")
"""What a component's file says of itself, see :mod:`experiments.composing.components`."""
_APART = ("_target_", "defaults", *NOTES)
"""Keys of a component's file that are no options."""


def description(option: Path) -> str:
    """The first comment line of a configuration file."""
    for line in option.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def docline(module: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("``", "")


def explained(option: Path) -> Iterator[tuple[str, str, str]]:
    """Every option of a component's file: its name, its default and the comment beside it."""
    for line in option.read_text(encoding="utf-8").splitlines():
        found = _VALUE.match(line)
        if found and found[1] not in _APART:
            yield found[1], found[2], found[3] or ""


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Names with what is said of each, one below the other."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"  {name:<{width}}  {said}".rstrip() for name, said in listed)
