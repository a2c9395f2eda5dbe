"""Declared sweeps: lines of overrides, each the product of its words' values, of a table or an experiment."""

from collections.abc import Collection, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from experiments.composing.overrides import parse


def expand(lines: Sequence[str], common: Sequence[str]) -> list[list[str]]:
    """The overrides of every cell of a declared sweep.

    Args:
        lines: each a product, e.g. ``defense=none,split attack=random,prior``.
        common: overrides of the command line; they win.

    Returns:
        One list of overrides a cell, in order, none twice.
    """
    cells: list[list[str]] = []
    for line in lines:
        words = {override.key_or_group: override for override in [*parse(line.split()), *parse(common)]}
        for batch in BasicSweeper.split_arguments(list(words.values()), None):
            cells.extend(cell for cell in batch if cell not in cells)
    return cells


def of_experiment(blocks: Sequence[Any], words: Sequence[str]) -> list[list[str]]:
    """The overrides of every cell of an experiment that lists them.

    Args:
        blocks: the node ``cells`` of its configuration: each a ``sweep`` with ``common`` before every line.
        words: of the command line; they win, and a part that they choose leaves the listed options of that part behind:
            an experiment is a setting for a cell of one's own, too. The experiments that they name are left out, but
            for ``smoke``.
    """
    named = [word.partition("=")[2].strip("[]").split(",") for word in words if word.startswith("experiment=")]
    kept = [word for word in words if not word.startswith("experiment=")]
    kept += ["experiment=smoke"] if any("smoke" in names for names in named) else []
    said = {key_of(word) for word in kept}
    lines = (f"{block.common} {line}".split() for block in blocks for line in block.sweep)
    return expand([" ".join(word for word in line if not _is_option(word, said)) for line in lines], kept)


def _is_option(word: str, parts: Collection[str]) -> bool:
    part, _, option = key_of(word).partition(".")
    return bool(option) and part in parts


def joined(common: str, line: str) -> str:
    """A line of a sweep with the common words before it.

    What the line says itself wins, and a part that it chooses leaves the common options of that part behind:
    ``defense=smd defense.audit=rank`` joined to ``defense=none`` is ``defense=none``.
    """
    said = {key_of(word) for word in line.split()}
    kept = [word for word in common.split() if not said & {key_of(word), key_of(word).partition(".")[0]}]
    return " ".join([*kept, *line.split()])


def key_of(word: str) -> str:
    """What a word sets: ``defense.audit`` of ``+defense.audit=rank``."""
    return word.partition("=")[0].lstrip("+~")
