"""``smd cite table=NAME``: BibTeX of the papers behind the rows of a table, an experiment, or what some words choose.

``smd cite defense=dp_text defense.mechanism=tem`` takes words as ``smd run`` does, ``defense=smd,po`` several; of parts
that no word names nothing is cited. The laboratory's own entry stands first, also without a word. Which component comes
from which paper stands in its YAML (:mod:`experiments.composing.citing`). Nothing is run.
"""

import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from experiments.commands import table
from experiments.composing.app import launch
from experiments.composing.cells import values_of
from experiments.composing.checking import configured
from experiments.composing.citing import LABORATORY, bibliography, cited, mentioned
from experiments.composing.composition import composition
from experiments.composing.overrides import folders
from experiments.composing.products import expand, of_experiment
from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.core.errors import ConfigError, LabError
from smd_research.core.paths import conf_dir

WITHOUT = ""
"""Stands for a key where a part names none."""


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd cite`` command.

    Returns:
        0; 1 for a paper that no bibliography holds; 2 for a command line that cannot be composed.
    """
    words = [word for word in (sys.argv[1:] if argv is None else argv) if word not in ("-m", "--multirun")]
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    flags = [word for word in words if word not in overrides]
    try:
        products = expand([""], overrides)
    except HydraException:  # said by the command that is started with them
        products = [overrides]
    found: dict[str, list[str]] = {}
    for product in products:
        if code := launch(partial(_collect, found, product, words), "cite", "smd cite", [*flags, *product]):
            return code
    if any(flag in ("-h", "--help") for flag in flags):
        return 0
    try:
        print(written(found, _entries(words), shlex.join(["smd", "cite", *words])))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _entries(words: Sequence[str]) -> dict[str, str]:
    """The bibliographies of the configuration and of the folders that a command line adds to it."""
    return bibliography([conf_dir(), *folders(words)])


def _collect(found: dict[str, list[str]], words: Sequence[str], given: Sequence[str], cfg: DictConfig) -> None:
    """Enter who cites what among what words ask for: a table's cells, an experiment's, or one cell's named parts."""
    named = {word.partition("=")[0].lstrip("+").partition(".")[0] for word in words}
    if cfg.get("table") is not None:
        claims = " ".join(str(claim["source"]) for claim in table.chosen(cfg).claims)
        keys = [*cited(values_of(cfg.table)), *mentioned(claims, _entries(given))]
        _enter(found, f"table={HydraConfig.get().runtime.choices['table']}", keys)
        cells: Sequence[Sequence[str]] = table.cells_of(cfg, words)
    else:
        cells = _of_experiment(cfg, words) if "experiment" in named else [words]
    for cell in cells:
        for part, keys in _parts(cell, named if cell is words else None):
            _enter(found, part, keys or [WITHOUT])


def _enter(found: dict[str, list[str]], part: str, keys: Iterable[str]) -> None:
    for key in keys:
        parts = found.setdefault(key, [])
        if part not in parts:
            parts.append(part)


def _of_experiment(cfg: Any, words: Sequence[str]) -> list[list[str]]:
    """The overrides of an experiment's cells: those it lists, or of the sweep it declares."""
    if cfg.cells is not None:
        return of_experiment(cfg.cells, words)
    swept = [f"{key}={value}" for key, value in (HydraConfig.get().sweeper.params or {}).items()]
    return expand([""], [*swept, *words])


def _parts(overrides: Sequence[str], named: Collection[str] | None) -> Iterator[tuple[str, list[str]]]:
    """The parts of a cell that say where they come from: the words of each, and the keys that it notes.

    Args:
        overrides: of the cell.
        named: which parts; None: all that make the cell.
    """
    cfg, choices = composition(overrides)
    values = configured(cfg)
    kinds = (*COMPONENTS, *OPTIONAL) if named is not None or values.get("task") else COMPONENTS
    for kind in kinds:
        if (named is None or kind in named) and isinstance(values.get(kind), dict) and "cites" in values[kind]:
            yield f"{kind}={choices[kind]}", cited(values[kind])


def written(found: Mapping[str, Sequence[str]], entries: Mapping[str, str], command: str) -> str:
    """A bibliography: the laboratory, then each paper below the parts that name it; last who names none.

    Raises:
        ConfigError: a key is in no bibliography.
    """
    blocks = [f"% {command}", f"% The laboratory itself.\n{entries[LABORATORY]}"]
    for key, parts in found.items():
        if key == WITHOUT:
            continue
        if key not in entries:
            raise ConfigError(
                f"{parts[0]} cites '{key}', which is in no papers.bib beside the groups of its configuration"
            )
        blocks.append(f"% {', '.join(parts)}\n{entries[key]}")
    citing = {part for key, parts in found.items() if key != WITHOUT for part in parts}
    if alone := [part for part in found.get(WITHOUT, ()) if part not in citing]:
        blocks.append(f"% From no paper: {', '.join(alone)}.")
    return "\n\n".join(blocks)


if __name__ == "__main__":
    sys.exit(main())
