"""``smd run key=value ...`` runs one cell, ``-m`` a sweep of them, ``experiment=demo`` the cells that it lists.

A known cell is not run again, so re-issuing a command continues it.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.commands import sweep
from experiments.commands.filling import Filling, is_launched, is_waiting
from experiments.composing import campaigns
from experiments.composing.app import launch
from experiments.composing.cells import composed, plan
from experiments.composing.checking import configured
from experiments.composing.composition import composition
from experiments.composing.overrides import UsageError
from experiments.composing.products import of_experiment
from experiments.composing.sweeps import Sweep
from experiments.launching import engines
from experiments.launching.launcher import Common
from experiments.trials.running import Runner


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd run`` command.

    Returns:
        0; 1 when a cell failed, or a single run does not apply; 2 for a command line that cannot be composed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    journal = sweep.Journal.new()
    runner = Runner()
    listed: list[DictConfig] = []
    asked: list[int] = []

    def one(cfg: DictConfig) -> None:
        job = HydraConfig.get()
        if cfg.cells is not None:
            listed.append(cfg)
            asked.append(run_listed(cfg, job, journal))
            return
        if is_launched():
            raise UsageError(
                f"hydra/launcher={job.runtime.choices['hydra/launcher']} takes the cells of a sweep: add -m"
            )
        overrides = [word for word in job.overrides.task if not word.startswith("rerun=")]
        cell = replace(plan(configured(cfg), job.runtime.choices, overrides), campaign=campaigns.of_run(job, words))
        sweep.attempt(cell, partial(runner.run, cell), journal, sweep.position(job, words))

    def swept(found: Sweep) -> None:
        campaign = campaigns.of_run(found.job, words)
        asked.append(len(found.cells))
        for place, checked in enumerate(found.cells, start=1):
            overrides = [word for word in checked.words if not word.startswith("rerun=")]
            cell = replace(plan(checked.values, checked.choices, overrides), campaign=campaign)
            sweep.attempt(cell, partial(runner.run, cell), journal, (place, len(found.cells)))

    def settled(number: int, overrides: Sequence[str]) -> bool:
        job = HydraConfig.get()
        if composition(overrides)[0].cells is not None or is_waiting(known := composed(overrides)):
            return False
        sweep.attempt(known, partial(runner.run, known), journal, (number + 1, sweep.cells(job, words)))
        return True

    engines.register()
    code = launch(one, "config", "smd run", words, swept, Common(journal.share, journal.tell, settled))
    if not asked and HydraConfig.initialized():
        asked.append(sweep.cells(HydraConfig.get(), words))
    must_end = 0 if "rerun=never" in words else sum(asked)
    return code or sweep.finish(journal, shlex.join(["smd", "run", *words]), bool(listed), must_end)


def run_listed(cfg: DictConfig, job: Any, journal: sweep.Journal) -> int:
    """Run the cells that an experiment lists; all are checked before the first runs.

    Args:
        cfg: the experiment's configuration.
        job: Hydra's own.
        journal: of this command.

    Returns:
        How many there are.
    """
    words = list(job.overrides.task)
    known = {tuple(cell): composed(cell) for cell in of_experiment(cfg.cells, words)}
    common = [word for word in words if not word.startswith("experiment=")]
    campaign = campaigns.of_cells(f"experiment {job.runtime.choices['experiment']}", common, known)
    Filling(cfg, known, campaign, journal, len(known)).run(list(known))
    return len(known)


if __name__ == "__main__":
    sys.exit(main())
