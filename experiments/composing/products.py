"""Declared sweeps: lines of overrides, each the product of its words' values, of a table or an experiment."""

from collections.abc import Sequence
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
        words: of the command line; they win. The experiments that it names are left out, but for ``smoke``.
    """
    named = [word.partition("=")[2].strip("[]").split(",") for word in words if word.startswith("experiment=")]
    kept = [word for word in words if not word.startswith("experiment=")]
    kept += ["experiment=smoke"] if any("smoke" in names for names in named) else []
    return expand([f"{block.common} {line}" for block in blocks for line in block.sweep], kept)
