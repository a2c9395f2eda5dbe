"""What the laboratory costs: commands that run nothing, known cells, and what a sweep takes beside its cells."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.benches.case import Case, Measured, Settings
from experiments.composing.cells import composed
from experiments.composing.composition import Composition, by_hydra, composition
from experiments.composing.products import expand
from smd_research.metrics import Estimate
from smd_research.records import Item, Record, Status, Store, items_frame, read

SWEEP = ("attack=random,prior", "defense=none,split,smd,po,dp_text")
TINY = ("n_prompts=2", "prompt_tokens=8", "max_new_tokens=2")
FRESH = ("-m", "defense=none,split,smd", "attack=random,prior", "n_prompts=4")
FEW_SEEDS = 2


def cases(settings: Settings) -> Iterator[Case]:
    """Seconds are those of a processor, in processes of their own; the last case is on the clock, as its cells are."""
    yield Case("help smd/python", partial(process, "-m", "experiments", "--help"), partial(process, "-c", "pass"), "s")
    listed = partial(process, "-m", "experiments", "list")
    yield Case("list smd/python", listed, partial(process, "-c", "pass"), "s")
    seeds = 100 if settings.size == "full" else 20
    cells = sweep(seeds)
    yield Case(
        "composition lab/hydra", partial(each, composition, cells), partial(each, by_hydra, cells[::17]), "ms/cell"
    )
    with TemporaryDirectory() as folder:
        remember(cells, Path(folder))
        many, few = (partial(known, n, Path(folder)) for n in (seeds, FEW_SEEDS))
        yield Case(f"known cells={len(cells)}/{len(sweep(FEW_SEEDS))}", many, few, "s", labels={"cells": len(cells)})
    yield Case("sweep whole/cells", fresh, None, "s", repeats=min(settings.repeats, 3), warmup=0)


def process(*command: str) -> float:
    """Processor seconds of a Python of its own.

    Raises:
        CalledProcessError: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sweep(seeds: int) -> list[list[str]]:
    """The words of each cell of a sweep."""
    return expand([" ".join([*SWEEP, *TINY, f"seed=range({seeds})"])], [])


def each(compose: Callable[[Sequence[str]], Composition], cells: Sequence[Sequence[str]]) -> float:
    """Milliseconds of the processor for each of some cells to be composed."""
    began = time.process_time()
    for words in cells:
        compose(words)
    return (time.process_time() - began) / len(cells) * 1e3


def remember(cells: Sequence[Sequence[str]], folder: Path) -> None:
    """Leave a record of each cell, as if it had run."""
    store = Store(folder)
    metrics = {"token_accuracy": Estimate(0.1, 0.0, 0.3, 2), "tpot_ms": Estimate(2.0, 1.9, 2.1, 2)}
    items = items_frame(Item(f"p{i}", {"token_accuracy": 0.1}, ["a"], ["b"], []) for i in range(2))
    for words in cells:
        cell = composed([*words, f"results_dir={folder}"]).cell
        store.write(Record(Status.OK, cell, "", metrics, items, {"python": sys.version.split()[0]}))


def known(seeds: int, folder: Path) -> float:
    """Processor seconds to list a sweep of known cells, its table and figure included."""
    words = [*SWEEP, *TINY, f"seed=range({seeds})", f"results_dir={folder}", "rerun=never"]
    return process("-m", "experiments", "run", "-m", *words)


def fresh() -> Measured:
    """Seconds of a sweep that is run for the first time; beside, the share of them that its cells did not take."""
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        words = [*FRESH, f"results_dir={folder}"]
        subprocess.run([sys.executable, "-m", "experiments", "run", *words], capture_output=True, check=True)
        whole = time.perf_counter() - began
        records = [read(path) for path in Store(folder).paths()]
        cells = sum(sum(record.environment["wall_s"].values()) for record in records)
    return Measured(whole, {"cells_s": cells, "outside_share": 1 - cells / whole})
