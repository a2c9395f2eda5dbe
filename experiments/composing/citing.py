"""The papers behind components: the keys that their YAMLs note, and the bibliographies that hold them.

Whose work a component is stands beside its options, and is no part of a cell::

    cites: [chen2024shaking, { fresh_epsilon: yue2021santext, mechanism=tem|dchi: carvalho2023tem }]

A note is a key of ``papers.bib`` in the folder of the configuration, a mapping from conditions
(:mod:`experiments.composing.conditions`) to keys, or a list of both; ``own`` says that it comes from no paper.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.composing.conditions import Condition
from smd_research.core.errors import ConfigError

OWN = "own"
LABORATORY = "smd_research"
"""Key of the laboratory's own entry."""

FILE = "papers.bib"
_HEAD = re.compile(r"^@\w+\s*\{\s*([^\s,{}]+)\s*,", re.MULTILINE)
_ARXIV = re.compile(r"\b(\d{4}\.\d{5})(?:v\d+)?\b")
_EPRINT = re.compile(r"^\s*eprint\s*=\s*[{\"]\s*(\d{4}\.\d{5})", re.MULTILINE | re.IGNORECASE)


def cited(node: Mapping[str, Any]) -> list[str]:
    """The keys that a component notes, with its options as they are; none where it is own work or notes nothing.

    Raises:
        ConfigError: the note is none.
    """
    try:
        return list(dict.fromkeys(_keys(node.get("cites") or [], node)))
    except ValueError as error:
        raise ConfigError(f"{node.get('_target_')}: cites: {error}") from None


def _keys(said: Any, options: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(said, str):
        if said != OWN:
            yield said
    elif isinstance(said, Mapping):
        for when, keys in said.items():
            if Condition.of(str(when)).holds(options):
                yield from _keys(keys, options)
    elif isinstance(said, Sequence):
        for one in said:
            yield from _keys(one, options)
    else:
        raise ValueError(f"'{said}' is neither a key, nor a condition with keys, nor a list of them")


def bibliography(folders: Sequence[Path]) -> dict[str, str]:
    """The entries of the bibliographies of some folders of configurations, by key; a later folder wins.

    Raises:
        ConfigError: an entry has no end.
    """
    found: dict[str, str] = {}
    for path in (folder / FILE for folder in folders):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            found |= {head[1]: _whole(text, head.start(), path) for head in _HEAD.finditer(text)}
    return found


def _whole(text: str, begin: int, path: Path) -> str:
    """An entry, to the brace that closes it."""
    depth = 0
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0 and text[place] == "}":
            return text[begin : place + 1]
    raise ConfigError(f"{path}: an entry that begins with '{text[begin : begin + 40].splitlines()[0]}' has no end")


def mentioned(text: str, entries: Mapping[str, str]) -> list[str]:
    """The keys of the entries whose arXiv numbers stand in a text."""
    numbers = set(_ARXIV.findall(text))
    return [key for key, entry in entries.items() if numbers & set(_EPRINT.findall(entry))]
