"""``smd run key=value ...`` runs one cell, ``-m`` a sweep of them.

A known cell is not run again, so re-issuing a command continues it.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.commands import sweep
from experiments.composing import campaigns
from experiments.composing.app import launch
from experiments.composing.cells import plan
from experiments.trials.running import Runner


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd run`` command.

    Returns:
        0; 1 when a cell failed, or a single run does not apply; 2 for a command line that cannot be composed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    journal = sweep.Journal.new()
    runner = Runner()

    def one(cfg: DictConfig) -> None:
        job = HydraConfig.get()
        overrides = [word for word in job.overrides.task if not word.startswith("rerun=")]
        asked = replace(plan(cfg, job.runtime.choices, overrides), campaign=campaigns.of_run(job, words))
        sweep.attempt(asked, lambda: runner.run(asked), journal, sweep.position(job, words))

    code = launch(one, "config", "smd run", words)
    return code or sweep.finish(journal, shlex.join(["smd", "run", *words]))


if __name__ == "__main__":
    sys.exit(main())
