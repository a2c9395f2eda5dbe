"""Jobs are followed to their end, lost ones submitted again; a host that does not share a folder says so."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from experiments.launching.ending import LateError, ends_properly
from experiments.launching.following import Ended, follow
from experiments.launching.job import Job
from experiments.launching.ray_cluster import RayCluster
from experiments.launching.slurm import Slurm, _queued
from experiments.launching.wants import Wants
from smd_research.core.errors import ConfigError, LabError, MachineError

WANTS = {"cpus": 1, "gpus": 0, "mem_gb": None, "timeout_min": None, "cells_per_job": 1, "retries": 1, "poll_s": 0.1}


def wants(**more: Any) -> Wants:
    return Wants(**{**WANTS, **more})


class Script:
    """An engine whose jobs end as is written: what each submission of a job comes to."""

    def __init__(self, fates: dict[str, list[Ended]]) -> None:
        self.fates = fates
        self.submitted: list[str] = []
        self.cancelled: list[str] = []

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        first = len(self.submitted)
        self.submitted += [cast(str, job) for job in jobs]
        return [f"{first + place}:{job}" for place, job in enumerate(jobs)]

    def ended(self, tickets: Collection[str]) -> dict[str, Ended]:
        names = {ticket: ticket.partition(":")[2] for ticket in tickets}
        return {ticket: self.fates[name].pop(0) for ticket, name in names.items() if self.fates[name]}

    def cancel(self, tickets: Collection[str]) -> None:
        self.cancelled += tickets


CONFIG = OmegaConf.create({"hydra": {"job": {"name": "smd"}}})


def followed(engine: Script, *jobs: str, retries: int = 1) -> int:
    return follow(engine, cast(Any, jobs), wants(retries=retries), lambda: None)


def test_a_lost_job_is_submitted_again_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Script({"a": [Ended()], "b": [Ended(lost="killed"), Ended()]})
    assert followed(engine, "a", "b") == 0
    assert engine.submitted == ["a", "b", "b"]
    assert "job 1:b was lost, and is submitted again: killed" in capsys.readouterr().err
    assert engine.cancelled == []


def test_a_job_that_is_lost_again_and_again_is_given_up() -> None:
    engine = Script({"a": [Ended(lost="killed")] * 3, "b": [Ended()]})
    assert followed(engine, "a", "b", retries=2) == 1
    assert engine.submitted.count("a") == 3


def test_what_ends_the_command_ends_its_jobs() -> None:
    engine = Script({"a": [Ended(wrong="cannot write results")], "b": []})
    with pytest.raises(LabError, match="cannot write results"):
        followed(engine, "a", "b")
    assert engine.cancelled == ["1:b"]


def job(folder: Path, marker: Path, cells: int = 0, alarm_s: float | None = None) -> Job:
    context = cast(Any, SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=lambda *_: CONFIG)))
    singletons, listed = Singleton.get_state(), [(number, []) for number in range(cells)]
    return Job(context, cast(Any, None), cast(Any, None), singletons, listed, folder, marker, 1, alarm_s, "the limit")


@pytest.mark.parametrize("lacking", ["marker", "folder"])
def test_a_folder_that_a_host_does_not_see_is_one_line(lacking: str, tmp_path: Path) -> None:
    (marker := tmp_path / "sweep" / ".shared").parent.mkdir()
    marker.touch()
    gone = tmp_path / "gone" / "x"
    said = job(gone if lacking == "folder" else tmp_path, gone if lacking == "marker" else marker)()
    assert f"does not see {gone if lacking == 'folder' else gone.parent}" in said
    assert "results_dir=" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "option", [{"cpus": 0}, {"cpus": 1.5}, {"gpus": -1}, {"mem_gb": "much"}, {"timeout_min": 0}, {"retries": True}]
)
def test_a_value_out_of_range_is_refused(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=rf"hydra.launcher.{name}="):
        wants(**option)


def test_a_cell_is_broken_off_while_there_is_time_to_give_it_back() -> None:
    assert wants().alarm_s is None
    assert wants(timeout_min=1).alarm_s == 36
    assert wants(timeout_min=60).alarm_s == 3510
    with pytest.raises(MachineError, match="timeout_min=1"), ends_properly(0.05, "timeout_min=1"):
        signal.pause()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.fixture
def in_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a job may run; where it runs and what it sets is as before after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_no_cell_is_begun_after_the_time_is_over(in_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def cell(self: Job, number: int, words: Sequence[str]) -> str:
        begun.append(number)
        with contextlib.suppress(MachineError):  # which a sweep enters as a failed cell
            time.sleep(1)
        return ""

    monkeypatch.setattr(Job, "_run", cell)
    assert job(in_job, in_job, cells=3, alarm_s=0.1)() == ""
    assert begun == [0]


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_a_time_that_is_over_between_two_cells_ends_the_job_and_not_the_command(
    how: str, in_job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = JobReturn(status=JobStatus.FAILED if how == "raised" else JobStatus.COMPLETED)
    late.return_value = LateError("broken off near its time limit")
    monkeypatch.setattr("experiments.launching.job.run_job", lambda **_: late)
    assert job(in_job, in_job, cells=2, alarm_s=60)() == ""
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_process_that_is_told_to_end_leaves_properly() -> None:
    code = (
        "import os, signal\nfrom experiments.launching.ending import ends_properly\n"
        "with ends_properly():\n try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n "
        "finally: os.kill(os.getpid(), signal.SIGUSR2); print('given back')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "given back\n")


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_an_extra_that_is_not_installed_is_named(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"slurm": "submitit", "ray": "ray"}[engine], None)
    with pytest.raises(ConfigError, match=rf"pip install 'smd-research\[{engine}\]'"):
        Slurm(wants(), tmp_path, None, None, 1, {}) if engine == "slurm" else RayCluster(wants(), "auto")


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.launching.slurm import check_cluster

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="there is no sbatch on this machine"):
        check_cluster(None)


def test_what_a_user_set_for_the_eye_hides_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (squeue := tmp_path / "squeue").write_text("#!/bin/sh\necho 7_1 ${SQUEUE_STATES} ${SQUEUE_PARTITION}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SQUEUE_STATES", "all")
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    assert _queued() == {"7_1"}


def test_jobs_of_which_some_are_refused_are_all_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("submitit.core.utils")
    arrays = [[SimpleNamespace(job_id="7_0")], utils.FailedJobError("sbatch: error: QOSMaxSubmitJobPerUserLimit")]

    def map_array(*_: object) -> Any:
        if isinstance(taken := arrays.pop(0), Exception):
            raise taken
        return taken

    engine, ended = object.__new__(Slurm), list[str]()
    vars(engine).update(_executor=SimpleNamespace(map_array=map_array), _jobs={})
    monkeypatch.setattr("experiments.launching.slurm._ARRAY", 1)
    monkeypatch.setattr(engine, "cancel", ended.extend)
    with pytest.raises(ConfigError, match="Slurm refuses the jobs: sbatch: error: QOSMaxSubmitJobPerUserLimit"):
        engine.submit(cast(Any, ["a", "b"]))
    assert ended == ["7_0"]
