"""``smd table table=NAME``: run what a declared table lacks, then write it as Markdown, CSV and a figure.

``conf/table/NAME.yaml`` holds the ``sweep`` (each line the overrides of a product of cells) and the ``view`` that makes
a table of their records, with a ``figure`` where one says more; or the ``benches`` whose files make a timing table
(``smd bench`` measures, a table only reads). Every other key of the command line is passed to each
cell, so a table can be tried on another model or with fewer prompts.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments import sweep
from experiments.app import launch
from experiments.cells import Plan, composed, plain
from experiments.overrides import UsageError, groups, nearest, parse
from experiments.run import run_cell
from smd_research.core.errors import ConfigError
from smd_research.core.paths import conf_dir


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


def plans(cfg: Any, words: Sequence[str]) -> Iterator[Plan]:
    """The plan of every cell of a table.

    Raises:
        UsageError: no table is named.
        ConfigError: its declaration has no sweep.
    """
    if cfg.get("table") is None:
        raise UsageError(f"table=NAME is needed: {nearest('', groups(conf_dir())['table'])}")
    if not cfg.table.get("sweep"):
        raise ConfigError("this table declares no sweep: conf/table/NAME.yaml needs a list 'sweep'")
    common = [word for word in words if not word.startswith(("table=", "-"))]
    for overrides in expand(list(cfg.table.sweep), common):
        yield composed(overrides)


def write(declared: Mapping[str, Any], folders: Sequence[Path], folder: Path, name: str) -> tuple[Path, ...]:
    """Render a table of records as Markdown, CSV and PNG; a declared figure takes the PNG's place."""
    from experiments.build import build
    from smd_research.records import frame_of, read
    from smd_research.records.render import write_table

    frame = frame_of([read(record) for record in folders])
    written = write_table(build(declared["view"])(frame, title=declared["title"]), folder, name)
    if declared.get("figure"):
        build(declared["figure"])(frame, folder / f"{name}.png")
    return written


def write_timing(declared: Mapping[str, Any], results_dir: Path, name: str) -> tuple[Path, ...]:
    """Render bench files, which are the one source of every timing figure.

    Raises:
        RecordError: when a bench has not been run.
    """
    from smd_research.records.bench import bench_table, read_bench
    from smd_research.records.render import write_table

    cases = [case for bench in declared["benches"] for case in read_bench(results_dir, bench).cases]
    return write_table(bench_table(cases, declared["title"]), results_dir / "tables", name)


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd table`` command.

    Returns:
        0; 1 when a cell failed; 2 for a command line that cannot be composed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    journal = sweep.Journal.new()
    declared: list[tuple[str, Mapping[str, Any], Path]] = []

    def one(cfg: DictConfig) -> None:
        name = str(HydraConfig.get().runtime.choices["table"])
        if cfg.table and cfg.table.get("benches"):
            for path in write_timing(plain(cfg.table), Path(cfg.results_dir), name):
                print(path)
            return
        asked = list(plans(cfg, words))
        declared.append((name, plain(cfg.table), asked[0].results_dir))
        shared: dict[str, Any] = {}
        for index, one_plan in enumerate(asked):
            place = (index + 1, len(asked))
            sweep.attempt(one_plan, partial(run_cell, one_plan, shared), journal, place)

    code = launch(one, "table", "smd table", words)
    entries = journal.close()
    if code or not declared:
        return code
    name, declaration, results_dir = declared[0]
    folders = [Path(entry.folder) for entry in entries if entry.folder]
    for path in write(declaration, folders, results_dir / "tables", name):
        print(path)
    return sweep.verdict(entries, shlex.join(["smd", "table", *words]))


if __name__ == "__main__":
    sys.exit(main())
