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
from experiments.composing import campaigns
from experiments.composing.app import launch
from experiments.composing.cells import composed, plan
from experiments.composing.checking import configured
from experiments.composing.products import of_experiment
from experiments.composing.sweeps import Sweep
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

    def one(cfg: DictConfig) -> None:
        job = HydraConfig.get()
        if cfg.cells is not None:
            listed.append(cfg)
            run_listed(cfg, job, runner, journal)
            return
        overrides = [word for word in job.overrides.task if not word.startswith("rerun=")]
        asked = replace(plan(configured(cfg), job.runtime.choices, overrides), campaign=campaigns.of_run(job, words))
        sweep.attempt(asked, lambda: runner.run(asked), journal, sweep.position(job, words))

    def swept(found: Sweep) -> None:
        campaign = campaigns.of_run(found.job, words)
        for place, cell in enumerate(found.cells, start=1):
            overrides = [word for word in cell.words if not word.startswith("rerun=")]
            asked = replace(plan(cell.values, cell.choices, overrides), campaign=campaign)
            sweep.attempt(asked, partial(runner.run, asked), journal, (place, len(found.cells)))

    code = launch(one, "config", "smd run", words, swept)
    return code or sweep.finish(journal, shlex.join(["smd", "run", *words]), bool(listed))


def run_listed(cfg: DictConfig, job: Any, runner: Runner, journal: sweep.Journal) -> None:
    """Run the cells that an experiment lists; all are checked before the first runs.

    Args:
        cfg: the experiment's configuration.
        job: Hydra's own.
        runner: of this command.
        journal: of this command.
    """
    words = list(job.overrides.task)
    known = {tuple(cell): composed(cell) for cell in of_experiment(cfg.cells, words)}
    common = [word for word in words if not word.startswith("experiment=")]
    campaign = campaigns.of_cells(f"experiment {job.runtime.choices['experiment']}", common, known)
    for place, one in enumerate(known.values(), start=1):
        asked = replace(one, campaign=campaign)
        sweep.attempt(asked, partial(runner.run, asked), journal, (place, len(known)))


if __name__ == "__main__":
    sys.exit(main())
