"""Sweeps: broken off in a process of their own and continued, side by side in several, logged."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tests_support import numbers

from experiments.commands.run import main
from smd_research.records import load

pytestmark = pytest.mark.slow

SWEEP = ["-m", "defense=none,split", "attack=random,prior,vocab_matching"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "experiments.commands.run", *words]


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[3])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}


def test_a_killed_sweep_continues_and_ends_with_the_same_numbers(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = in_folder / "results" / "broken", in_folder / "results" / "whole"
    words = [*SWEEP, *small]
    started = subprocess.Popen(
        command(*words, f"results_dir={broken}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while len(list((broken / "cells").glob("[!.]*"))) < 2 and time.monotonic() < deadline:
        assert started.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    done = len(list((broken / "cells").glob("[!.]*")))
    assert 2 <= done < 6

    assert main([*words, f"results_dir={broken}"]) == 0
    assert f"6 cells: {6 - done} run now, {done} known before, 0 failed" in capsys.readouterr().out
    assert main([*words, f"results_dir={whole}"]) == 0
    pd.testing.assert_frame_equal(numbers(broken), numbers(whole))
    assert not list((broken / "cells").glob(".*")), "nothing half-written is left"


def test_joblib_runs_the_same_cells_in_worker_processes(in_folder: Path, small: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", "defense=none", "attack=random,reading", *small, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(command(*words), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert "2 cells: 2 run now, 0 known before, 0 failed" in done.stdout
    assert set(load("results")["attack"]) == {"random", "reading"}


def test_each_cell_of_a_sweep_is_a_finished_wandb_run(in_folder: Path, small: list[str]) -> None:
    home = in_folder / "results" / "home"
    variables = {name: str(home) for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    done = subprocess.run(
        command("-m", "defense=none", "attack=random,reading", "logger=wandb", *small),
        capture_output=True,
        text=True,
        env={**environment(), **variables},
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    runs = list((in_folder / "results" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
