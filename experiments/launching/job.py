"""What a job runs: some cells of a command, on a host that shares its folders and has the lab installed."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from experiments.launching.ending import LateError, ends_properly
from smd_research.core.errors import LabError


@dataclass(frozen=True)
class Job:
    """Some cells, run one after another as Hydra runs them.

    Attributes:
        hydra_context: how configurations are composed.
        config: of the command.
        task: called with each cell's configuration; returns what went wrong, if anything did.
        singletons: Hydra's state.
        cells: number and overrides of each.
        folder: that the command was given in.
        marker: a file that the command wrote beside its results.
        cpus: cores that the job has.
        alarm_s: seconds after which a cell is broken off, and none is begun; None for never.
        limit: words that name that limit.
    """

    hydra_context: HydraContext
    config: DictConfig
    task: TaskFunction
    singletons: Any
    cells: Sequence[tuple[int, Sequence[str]]]
    folder: Path
    marker: Path
    cpus: int
    alarm_s: float | None
    limit: str

    def __call__(self) -> str:
        """Run the cells.

        Returns:
            What ends the whole command, in one line; empty where nothing does.
        """
        for place in (self.marker, self.folder):
            if not place.exists():
                return f"{socket.gethostname()} does not see {place.parent if place == self.marker else place}: " + (
                    "jobs need results_dir= and the working directory on a file system that all hosts share"
                )
        os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # read when torch is loaded
        os.chdir(self.folder)
        sys.path[:0] = [] if str(self.folder) in sys.path else [str(self.folder)]  # a user's own attacks
        setup_globals()
        Singleton.set_state(self.singletons)
        began = time.monotonic()
        # Between two cells, too, the time may be over; that ends neither the command nor what it has elsewhere.
        with contextlib.suppress(LateError), ends_properly(self.alarm_s, self.limit):
            for number, words in self.cells:
                if self.alarm_s is not None and time.monotonic() - began >= self.alarm_s:
                    break
                if wrong := self._run(number, words):
                    return wrong
        return ""

    def _run(self, number: int, words: Sequence[str]) -> str:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(words))
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
        done = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        try:
            raised = done.return_value
        except Exception as error:
            raised = error
        if isinstance(raised, LateError):
            raise raised
        if isinstance(raised, Exception):
            said = " ".join(str(raised).split())
            return said if isinstance(raised, LabError) else f"{type(raised).__name__}: {said}"
        return ""
