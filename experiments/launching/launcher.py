"""Hydra's launchers of Slurm and Ray: cells become jobs, and jobs are followed."""

import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.composing.app import COMMON
from experiments.launching.following import Engine, follow
from experiments.launching.job import Job
from experiments.launching.wants import Wants
from smd_research.core.errors import RecordError


def _nothing_is(number: int, words: Sequence[str]) -> bool:
    """Whether a cell needs no job: none does, where nobody looked."""
    return False


@dataclass(frozen=True)
class Common:
    """What the jobs of a command have in common with it.

    Attributes:
        share: moves what they write to where jobs on other hosts reach it, given the results folder.
        tell: says what has finished since it was last called.
        settled: whether a cell, by its number and overrides, needs no job.
    """

    share: Callable[[Path], object]
    tell: Callable[[], object]
    settled: Callable[[int, Sequence[str]], bool] = _nothing_is


class Elsewhere(Launcher):
    """Runs cells on other hosts.

    Args:
        options: of :class:`Wants`, and those of the engine.
    """

    def __init__(self, **options: Any) -> None:
        said: dict[str, Any] = {
            name: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for name, v in options.items()
        }
        self._wanted = {name: said.pop(name) for name in Wants.__dataclass_fields__}
        self.options = said

    @cached_property
    def wants(self) -> Wants:
        """What each job asks for.

        Raises:
            ConfigError: for a value out of range; here, since Hydra words what is raised while it builds a launcher.
        """
        return Wants(**self._wanted)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @abstractmethod
    def engine(self, folder: Path) -> AbstractContextManager[Engine]:
        """The engine while cells are run, given a folder that all hosts share."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run cells.

        Raises:
            LabError: the engine does not take them, or a job met what ends the whole command.
        """
        if not HydraConfig.initialized():  # of a sweep, Hydra sets that of each job alone
            HydraConfig.instance().set_config(self.config)
        folder = Path(self.config.hydra.sweep.dir).expanduser().resolve()
        with self.engine(folder) as engine, _marked(folder) as marker:
            common: Common = getattr(self.task_function, COMMON)
            common.share(Path(self.config.results_dir).expanduser())
            numbered = enumerate(job_overrides, start=initial_job_idx)
            cells = [(number, words) for number, words in numbered if not common.settled(number, words)]
            each = self.wants.cells_per_job
            jobs = [self._job(cells[first : first + each], marker) for first in range(0, len(cells), each)]
            follow(engine, jobs, self.wants, common.tell)
        return [JobReturn(overrides=list(one), status=JobStatus.COMPLETED) for one in job_overrides]

    def _job(self, cells: Sequence[tuple[int, Sequence[str]]], marker: Path) -> Job:
        limit = f"hydra.launcher.timeout_min={self.wants.timeout_min}"
        return Job(
            self.hydra_context, self.config, self.task_function, Singleton.get_state(), cells, Path.cwd(), marker,
            self.wants.cpus, self.wants.alarm_s, limit,
        )  # fmt: skip


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in a folder, while jobs run, that only those see who share it."""
    marker = folder / f".shared-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise RecordError(f"cannot write {folder}: {error.strerror}; choose another results_dir=") from error
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)
