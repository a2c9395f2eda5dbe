"""Sweeps: broken off in a process of their own and continued, side by side in several, logged."""

import time
from pathlib import Path

import pandas as pd
import pytest
from tests_support import numbers

from experiments.commands.run import main
from experiments.commands.table import main as table
from smd_research.boundary.process import fork_server
from smd_research.records import Store, load

pytestmark = pytest.mark.slow


def test_a_killed_sweep_continues_and_ends_with_the_same_numbers(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = in_folder / "results" / "broken", in_folder / "results" / "whole"
    words = ["-m", "defense=none,split", "attack=none,random,reading", *small]
    started = fork_server().Process(target=main, args=([*words, f"results_dir={broken}"],))
    started.start()
    deadline = time.monotonic() + 120
    while len(list((broken / "cells").glob("[!.]*"))) < 2 and time.monotonic() < deadline:
        assert started.is_alive(), "the sweep ended before it could be killed"
        time.sleep(0.02)
    started.kill()
    started.join()
    done = len(list((broken / "cells").glob("[!.]*")))
    assert 2 <= done < 6

    assert main([*words, f"results_dir={broken}"]) == 0
    assert f"6 cells: {6 - done} run now, {done} known before, 0 failed" in capsys.readouterr().out
    assert main([*words, f"results_dir={whole}"]) == 0
    pd.testing.assert_frame_equal(numbers(broken), numbers(whole))
    assert not list((broken / "cells").glob(".*")), "nothing half-written is left"


def test_joblib_runs_the_same_cells_in_worker_processes(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    words = ["-m", "defense=none", "attack=random,reading", *small, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    try:
        assert main(words) == 0
    finally:
        get_reusable_executor().shutdown(kill_workers=True)
    assert "2 cells: 2 run now, 0 known before, 0 failed" in capsys.readouterr().out
    assert set(load("results")["attack"]) == {"random", "reading"}


def test_what_ends_a_job_of_another_process_ends_the_command(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    (in_folder / "results").mkdir(exist_ok=True)
    (in_folder / "results" / "cells").write_text("no folder")
    words = ["-m", "defense=none", "attack=random,reading", *small, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    try:
        assert main(words) == 1
    finally:
        get_reusable_executor().shutdown(kill_workers=True)
    assert "error: cannot write results" in capsys.readouterr().err


def test_a_table_takes_a_launcher_too(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    (in_folder / "results" / "conf" / "table").mkdir(parents=True)
    (in_folder / "results" / "conf" / "table" / "two.yaml").write_text(TWO)
    words = ["-cd", "results/conf", "table=two", *small]
    here, there = ([*words, f"results_dir=results/{name}"] for name in ("here", "there"))
    try:
        assert table([*there, "attack=reading", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]) == 0
        assert "1 cells: 1 run now, 0 known before, 0 failed" in capsys.readouterr().out
        assert table([*there, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]) == 0
        assert "2 cells: 1 run now, 1 known before, 0 failed" in capsys.readouterr().out
    finally:
        get_reusable_executor().shutdown(kill_workers=True)
    assert table(here) == 0
    pd.testing.assert_frame_equal(numbers(Path("results/here")), numbers(Path("results/there")))
    commands = {record.cell.command for record in Store("results/there").records()}
    assert not any("hydra" in command for command in commands), "where it was run is not what was run"


TWO = "title: Two\ncommon: defense=none\nsweep: [attack=random, attack=reading]\nview: summary\n"


def test_each_cell_of_a_sweep_is_a_finished_wandb_run(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(in_folder / "results" / "home"))
    assert main(["-m", "defense=none", "attack=random,reading", "logger=wandb", *small]) == 0
    assert "warning" not in capfd.readouterr().err.lower()
    runs = list((in_folder / "results" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
