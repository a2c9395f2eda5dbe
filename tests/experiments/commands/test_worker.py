"""Workers fill a table together: no cell is run twice, and that of one who is gone is taken over."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counted_cells import Grid

from experiments.commands.cli import main as smd
from experiments.trials.running import Runner
from smd_research.core.errors import MachineError


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_workers_share_a_table_and_take_over_from_who_is_gone(tmp_path: Path) -> None:
    grid = Grid(tmp_path, seconds=1, seeds=3)
    told, killed = grid.start("worker"), grid.start("worker")
    try:
        wait_for(lambda: {one[0] for one in grid.unfinished()} == {str(told.pid), str(killed.pid)})
        told.send_signal(signal.SIGTERM)
        killed.kill()
        assert told.wait(60) == 128 + signal.SIGTERM
        assert killed.wait(60) == -signal.SIGKILL
        claims = list((grid.results / "claims").glob("*.json"))
        assert len(claims) == 1, "who is told to end gives the cell back, who is killed cannot"
        before = len(grid.noted("ended"))
        last = [grid.start("worker") for _ in range(2)]
        said = [one.communicate(timeout=400)[0] for one in last]
    finally:
        for one in (told, killed):
            one.kill()
            one.communicate()
    assert [one.returncode for one in last] == [0, 0], said
    assert all("6 cells: none is left; " in one for one in said)
    assert sum(f"; {ran} run here, 0 failed" in one for one in said for ran in range(7)) == 2
    assert "rerun=never" in said[0]
    assert len(grid.noted("ended")) == 6
    assert len(grid.noted("began")) == 6 + 2, "those that were broken off"
    assert {one[0] for one in grid.noted("ended")[before:]} <= {str(one.pid) for one in last}
    assert not list((grid.results / "claims").glob("*.json"))


def test_cells_that_a_machine_cannot_run_are_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise MachineError("there is no accelerator")

    Grid(tmp_path, seeds=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Runner, "run", refuse)
    assert smd(["worker", "-cd", "mine/conf", "table=grid"]) == 1
    assert "2 cells: 2 left without a record; 2 run here, 2 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "table=NAME is needed"),
        (["table=smd_attacks", "rerun=always"], 2, "rerun=always: a worker runs what is missing"),
        (["table=smd_users"], 2, "table=smd_users shows benches: measure them with smd bench"),
        (
            ["table=smd_attacks", "hydra/launcher=slurm"],
            2,
            "a worker runs cells itself: give hydra/launcher= to smd table",
        ),
    ],
    ids=["no table", "always", "benches", "launcher"],
)
def test_what_a_worker_cannot_do_is_one_line(
    words: list[str], code: int, said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(["worker", *words]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("error: ") == 1
    assert not (in_folder / "results").exists()
