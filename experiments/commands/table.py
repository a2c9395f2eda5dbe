"""``smd table table=NAME``: run what a declared table lacks, then write it as Markdown, CSV, LaTeX and a figure.

``conf/table/NAME.yaml`` holds the ``sweep`` (each line the overrides of a product of cells, with those of ``common``
before it; one list for each size where there are two; with ``halving`` they are candidates, of which only the best go
on to a longer budget) or the ``benches`` whose files are read (``smd bench`` measures, a table only reads); the
``view`` that makes a table of either, a ``figure`` where one says more, and ``claims`` with their rules, in the words
of :mod:`experiments.composing.words`. Every other key of the command line is passed to each cell, so a table can be
tried on another model or with fewer prompts. With ``rerun=never`` nothing is run and what is known is shown: the rest
stands as ``...``.
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.commands import sweep
from experiments.commands.filling import Filling, Words
from experiments.composing import campaigns
from experiments.composing.app import launch
from experiments.composing.catalogue import columns, description
from experiments.composing.cells import composed, values_of
from experiments.composing.declared import Declared, bench_commands, declared, of_benches, of_sweep, resolve, write
from experiments.composing.halving import Outcome
from experiments.composing.overrides import UsageError, groups
from experiments.composing.products import expand
from experiments.launching import engines
from experiments.trials.plan import Plan
from smd_research.core.errors import LabError
from smd_research.core.paths import conf_dir
from smd_research.core.progress import say

if TYPE_CHECKING:
    from smd_research.records import Record


LAUNCHING = ("hydra/launcher=", "hydra.launcher.")
"""How words begin that say where cells are run."""


def cells_of(cfg: Any, words: Sequence[str]) -> list[tuple[str, ...]]:
    """The overrides of every cell that a table may run; none where it shows benches.

    Raises:
        UsageError: no table is named, or a size that does not exist.
        ConfigError: its declaration has nothing to show.
    """
    table, common = chosen(cfg), common_of(words)
    cells = expand(table.sweep, common)
    return list(table.halving.all(cells, common) if table.halving else map(tuple, cells))


def plans(cfg: Any, words: Sequence[str]) -> dict[tuple[str, ...], Plan]:
    """The plan of every cell that a table may run, by its overrides.

    Raises:
        UsageError: no table is named, or a size that does not exist.
        ConfigError: its declaration has nothing to show.
    """
    return {overrides: composed(overrides) for overrides in cells_of(cfg, words)}


def run_all(cfg: DictConfig, name: str, words: Sequence[str], journal: sweep.Journal) -> list[Plan]:
    """Run what a table lacks: its whole sweep, or rung by rung what a halving chooses.

    Returns:
        The plans of the cells that it shows.

    Raises:
        LabError: what ends the whole command.
    """
    from smd_research.records import Store

    table, common, known = chosen(cfg), common_of(words), plans(cfg, words)
    cells = expand(table.sweep, common)
    total = table.halving.count(len(cells)) if table.halving else len(cells)
    waiting = sum(not Store(plan.results_dir).folder(plan.cell).exists() for plan in known.values())
    if waiting and not table.halving and cfg.rerun != "never":
        say(f"{total} cells: {total - waiting} known, {waiting} to run")
    filling = Filling(cfg, known, campaigns.of_cells(f"table {name} {table.size}", common, known), journal, total)
    fill(table, cells, common, known, filling.run)
    return filling.asked


def fill(
    table: Declared,
    cells: Sequence[Sequence[str]],
    common: Sequence[str],
    known: Mapping[Words, Plan],
    run: Callable[[Sequence[Words]], Sequence["Record | None"]],
) -> None:
    """Ask for the cells of a table: all at once, or rung by rung where the next hangs on how the last ended.

    Args:
        table: as it is declared.
        cells: the overrides of each of its sweep.
        common: overrides of the command line.
        known: the plan of each.
        run: runs a batch.
    """

    def outcomes(batch: Sequence[Words]) -> list[Outcome]:
        records = run(batch)
        return [{name: one.mean for name, one in r.metrics.items()} if r and r.metrics else None for r in records]

    if table.halving:
        table.halving.run(cells, common, outcomes)
    else:
        run(list(known))


def chosen(cfg: Any) -> Declared:
    """The table that a command line names, in the size it names.

    Raises:
        UsageError: no table is named, or a size that does not exist.
        ConfigError: its declaration has nothing to show.
    """
    if cfg.get("table") is None:
        folder = conf_dir() / "table"
        listed = ((name, description(folder / f"{name}.yaml")) for name in groups(conf_dir())["table"])
        raise UsageError(f"table=NAME is needed; there is\n{columns(listed)}")
    return declared(values_of(cfg.table), str(cfg.size))


def common_of(words: Sequence[str]) -> list[str]:
    """The words of a command line that are passed to each cell."""
    return [word for word in words if not word.startswith(("table=", "size=", "-", *LAUNCHING))]


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd table`` command.

    Returns:
        0; 1 when a cell failed; 2 for a command line that cannot be composed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    journal = sweep.Journal.new()
    asked: list[Plan] = []
    shown: list[tuple[str, Declared, Path]] = []

    def one(cfg: DictConfig) -> None:
        resolve(chosen(cfg))  # a misspelt word is refused before hours of cells
        name = str(HydraConfig.get().runtime.choices["table"])
        asked.extend(run_all(cfg, name, words, journal))
        shown.append((name, chosen(cfg), Path(cfg.results_dir).expanduser()))

    engines.register()
    code = launch(one, "table", "smd table", words)
    entries = journal.close()
    if code or not shown:
        return code
    name, table, results_dir = shown[0]
    folders = [Path(entry.folder) for entry in entries if entry.folder]
    own = ("rerun=", "results_dir=", *LAUNCHING)
    again = shlex.join(["smd", "table", *(word for word in words if not word.startswith(own))])
    cells = list({plan.cell.id: plan.cell for plan in asked}.values())  # experiment=smoke may make one of several
    try:
        measured = of_sweep(cells, journal.records(entries), again) if table.sweep else of_benches(table, results_dir)
        again = " && ".join([*bench_commands(table), again])
        for path in write(table, measured, results_dir / "tables", name, again):
            print(path)
        if folders:
            from smd_research.records import pack

            print(pack(folders, results_dir / "tables" / "records" / f"{table.file(name)}.parquet"))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    lost = 0 if "rerun=never" in words else len(asked) - len(entries)
    return sweep.verdict(entries, shlex.join(["smd", "table", *words]), lost) if table.sweep else 0


if __name__ == "__main__":
    sys.exit(main())
