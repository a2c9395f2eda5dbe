"""One run at a time works on a phase, and a run that starts over finds its folder empty."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.trials.phase_folders import held
from smd_research.core.cell import Cell


def planned(results: Path, rerun: str = "changed", **fields: Any) -> Any:
    """As much of a plan as names a folder."""
    parts = {name: {"name": "none"} for name in ("model", "data", "defense", "attack")}
    cell = Cell(**{**parts, "task": {"name": "urgency", "train": 4}, "tuning": {"name": "full"}, **fields})
    return SimpleNamespace(cell=cell, results_dir=results, rerun=rerun)


def test_cells_share_a_phase_where_nothing_that_makes_it_differs(tmp_path: Path) -> None:
    folders: dict[tuple[str, str], Path] = {}
    other: dict[str, dict[str, Any]]
    other = {"attack": {"attack": {"name": "random"}}, "tuning": {"tuning": {"name": "lora"}}, "seed": {"seed": 1}}
    other["noise"] = {"defense": {"name": "none", "fresh_epsilon": 8.0}}
    other["strength"] = {"defense": {"name": "none", "tilt": 8.0}}
    for name, fields in {"same": {}, **other}.items():
        for phase in ("implant", "tune"):
            with held(planned(tmp_path, **fields), phase) as folder:
                folders[name, phase] = folder
    assert folders["attack", "tune"] == folders["same", "tune"]
    assert folders["tuning", "tune"] != folders["same", "tune"]
    assert folders["tuning", "implant"] == folders["same", "implant"]
    assert folders["noise", "tune"] != folders["same", "tune"]
    assert folders["noise", "implant"] == folders["same", "implant"]
    assert folders["strength", "implant"] != folders["same", "implant"]
    assert folders["seed", "implant"] != folders["same", "implant"]


def test_a_second_run_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entered, told = threading.Event(), []

    def second() -> None:
        with held(planned(tmp_path), "implant") as folder:
            told.append(folder.is_dir())
            entered.set()

    with held(planned(tmp_path), "implant") as folder:
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3), "or two runs write into one folder"
        folder.mkdir()
    assert entered.wait(10)
    thread.join()
    assert told == [True]
    assert "waiting" in capsys.readouterr().err


def test_a_run_that_fails_lets_go_and_one_that_starts_over_empties(tmp_path: Path) -> None:
    def interrupted() -> None:
        with held(planned(tmp_path), "tune") as folder:
            (folder / "state").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with held(planned(tmp_path), "tune") as folder:
        assert (folder / "state").is_dir()
    with held(planned(tmp_path, rerun="always"), "tune") as folder:
        assert not folder.exists()
