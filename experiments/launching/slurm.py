"""Slurm, by submitit: it writes scripts, pickles jobs and submits arrays; what became of one, ``squeue`` says.

submitit itself asks ``sacct``, which knows nothing where a cluster keeps no accounts.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.composing.overrides import nearest
from experiments.launching.following import Ended
from experiments.launching.job import Job
from experiments.launching.wants import Wants
from smd_research.core.errors import ConfigError, MachineError

_ARRAY = 1000
"""Jobs of an array: a cluster takes 1001 unless it is told otherwise."""

_PATIENCE_S = 10.0
_ASKED_S = 20.0
_NO_LIMIT = 0


class Slurm:
    """The Slurm cluster on one of whose hosts this runs.

    Args:
        wants: what each job asks for.
        folder: where scripts, pickled jobs and logs go; every host sees it.
        partition: where jobs queue; None for the cluster's default.
        account: whom they are charged to.
        parallel: jobs at once.
        options: of sbatch besides, by name.

    Raises:
        ConfigError: submitit is not installed, or there is no such partition.
        MachineError: this is no host of a cluster, or its controller does not answer.
    """

    def __init__(
        self,
        wants: Wants,
        folder: Path,
        partition: str | None,
        account: str | None,
        parallel: int,
        options: Mapping[str, Any] | None,
    ) -> None:
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise ConfigError("hydra/launcher=slurm needs the extra slurm: pip install 'smd-research[slurm]'") from None
        check_cluster(partition)
        self._folder = folder
        self._executor = SlurmExecutor(folder=folder / "%j", max_num_timeout=0)
        self._executor.update_parameters(
            job_name="smd",
            cpus_per_task=wants.cpus,
            setup=[f"export OMP_NUM_THREADS={wants.cpus}"],
            array_parallelism=parallel,
            stderr_to_stdout=True,
            **_given(
                partition=partition,
                account=account,
                gpus_per_node=int(wants.gpus) or None,
                mem=f"{round(wants.mem_gb * 1024)}MB" if wants.mem_gb else None,
            ),
            time=max(1, round(wants.timeout_min)) if wants.timeout_min else _NO_LIMIT,
            additional_parameters={"signal": "USR2@1", **(options or {})},
        )
        self._jobs: dict[str, Any] = {}
        self._gone: dict[str, float] = {}
        self._lost = False

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Hand over jobs, as arrays: all or none.

        Raises:
            ConfigError: sbatch refuses them, or some, as where a user may have no more.
        """
        from submitit.core.utils import FailedJobError

        tickets: list[str] = []
        for first in range(0, len(jobs), _ARRAY):
            try:
                taken = self._executor.map_array(Job.__call__, jobs[first : first + _ARRAY])
            except FailedJobError as error:
                self.cancel(tickets)  # of the arrays before this one, which nobody would follow
                raise ConfigError(f"Slurm refuses the jobs: {_last_line(str(error))}") from None
            self._jobs |= {one.job_id: one for one in taken}
            tickets += [one.job_id for one in taken]
        return tickets

    def ended(self, tickets: Collection[str]) -> dict[str, Ended]:
        """Those that left a result, and those that left the queue without one."""
        queued = _queued()
        return {ticket: ended for ticket in tickets if (ended := self._became(ticket, queued))}

    def cancel(self, tickets: Collection[str]) -> None:
        """End jobs, and wait a little until they are gone."""
        if not tickets:
            return
        subprocess.run(["scancel", *tickets], env=_bare(), capture_output=True, check=False)
        deadline = time.monotonic() + _PATIENCE_S
        while (queued := _queued()) and queued & set(tickets) and time.monotonic() < deadline:
            time.sleep(0.5)

    def clear(self) -> None:
        """Remove scripts, pickled jobs and logs, unless a job was lost and somebody may look at them."""
        if not self._lost:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _became(self, ticket: str, queued: set[str] | None) -> Ended | None:
        from submitit.core.utils import pickle_load

        paths = self._jobs[ticket].paths
        if paths.result_pickle.exists():
            outcome, value = pickle_load(paths.result_pickle)
            return Ended(wrong=value if outcome == "success" else f"job {ticket}: {_last_line(str(value))}")
        if queued is None or ticket in queued:
            self._gone.pop(ticket, None)
            return None
        # The result may reach this host later than the news that the job is over.
        if time.monotonic() - self._gone.setdefault(ticket, time.monotonic()) < _PATIENCE_S:
            return None
        self._lost = True
        log = paths.stdout
        seen = f"its log is {log}" if log.exists() else f"it wrote no log: do its hosts share {self._folder}?"
        return Ended(lost=f"Slurm has no such job any more, and it left no result; {seen}")


def check_cluster(partition: str | None) -> None:
    """Refuse what can have no jobs, before anything is submitted.

    Raises:
        ConfigError: there is no such partition.
        MachineError: this is no host of a cluster, or its controller does not answer.
    """
    if lacking := [name for name in ("sbatch", "squeue", "sinfo", "scancel", "srun") if not shutil.which(name)]:
        raise MachineError(
            f"hydra/launcher=slurm: there is no {lacking[0]} on this machine; "
            "give the command on a host of a Slurm cluster"
        )
    try:
        asked = subprocess.run(
            ["sinfo", "--noheader", "--format=%R"],
            env=_bare(),
            capture_output=True,
            text=True,
            timeout=_ASKED_S,
            check=False,
        )
        said, failed = asked.stderr, asked.returncode != 0
    except subprocess.TimeoutExpired:
        said, failed = f"no answer in {_ASKED_S:g} s", True
    if failed:
        raise MachineError(f"hydra/launcher=slurm: Slurm's controller does not answer ({_last_line(said)})")
    there = asked.stdout.split()
    if partition is not None and partition not in there:
        raise ConfigError(
            f"hydra.launcher.partition={partition}: there is no such partition; {nearest(partition, there)}"
        )


def _queued() -> set[str] | None:
    """The jobs that wait or run; None while nobody says."""
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
    try:
        asked = subprocess.run(command, env=_bare(), capture_output=True, text=True, timeout=_ASKED_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    return set(asked.stdout.split()) if asked.returncode == 0 else None


def _bare() -> dict[str, str]:
    """The environment without what a user set for the eye: it shows jobs that are over, or hides some that are not."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SINFO_", "SCANCEL_"))}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
