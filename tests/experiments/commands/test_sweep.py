"""The journal of a sweep, its counter, and what is said at its end."""

import os
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.commands.sweep import Journal, JournalEntry, attempt, finish, position, verdict
from experiments.trials.running import one_line
from smd_research.core.cell import Cell
from smd_research.core.errors import ConfigError, RecordError
from smd_research.records import Record, Status


def entry(name: str, status: str, reason: str = "", reused: bool = False) -> JournalEntry:
    return JournalEntry(name, "prior", status, reason, "results", reused=reused)


def planned() -> Any:
    cell = Cell({"name": "m"}, {"name": "d"}, {"name": "smd"}, {"name": "prior"}, command="smd run defense=smd")
    return SimpleNamespace(cell=cell, results_dir=Path("results"), logger={"name": "none"})


def test_the_journal_keeps_entries_of_every_job_in_order() -> None:
    journal = Journal.new()
    entries = [entry("a", "ok"), entry("b", "failed", "line\nbreak"), entry("c", "n/a")]
    for one in entries:
        Journal(journal.path).enter(one)
    assert journal.close() == entries
    assert not journal.path.exists()


@pytest.mark.parametrize(
    ("words", "params", "expected"),
    [
        (["defense=a,b", "attack=x,y,z", "-m"], None, 6),
        (["-m", "seed=range(4)"], None, 4),
        (["experiment=demo"], {"defense": "a,b", "attack": "x,y,z"}, 6),
        (["experiment=demo", "attack=x"], {"defense": "a,b", "attack": "x,y,z"}, 2),
        (["-m", "seed=1"], {}, 1),
    ],
)
def test_the_counter_knows_how_many_cells_there_are(words: list[str], params: Any, expected: int) -> None:
    job = SimpleNamespace(
        mode=SimpleNamespace(name="MULTIRUN"), job=SimpleNamespace(num=0), sweeper=SimpleNamespace(params=params)
    )
    assert position(job, words) == (1, expected)
    job.mode.name = "RUN"
    assert position(job, words) is None


def test_failed_cells_are_named_with_the_command_that_retries(capsys: pytest.CaptureFixture[str]) -> None:
    ended = [entry("a", "ok", reused=True), entry("b", "failed", "out of memory")]
    ended += [entry("c", "n/a", "needs ids"), entry("d", "n/a", "needs ids")]
    code = verdict(ended, "smd run -m defense=a,b,c,d")
    shown = capsys.readouterr().out
    assert code == 1
    assert "Run the failed ones again: smd run -m defense=a,b,c,d\n" in shown
    assert "prior against b: out of memory" in shown
    assert "prior against c, d: needs ids" in shown
    assert "4 cells: 3 run now, 1 known before, 1 failed" in shown


def test_known_cells_are_named_with_the_command_that_logs_them(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [f"results/cells/smd-prior-m-d-s{n}-0a{n}" for n in range(14)]
    known = [replace(entry("a", "ok", reused=True), folder=folder, logger="csv") for folder in folders]
    new = replace(entry("a", "ok"), folder="x", logger="wandb", sync="wandb sync results/wandb/offline-run-*")
    verdict([*known[:2], new, new], "smd run")
    shown = capsys.readouterr().out
    assert shown.count("Send the runs to Weights & Biases: wandb sync results/wandb/offline-run-*\n") == 1
    assert (
        "2 known, not logged again; this logs them: smd log results_dir=results logger=csv 'cells=[s0-0a0,s1-0a1]'"
        in shown
    )
    verdict(known, "smd run")
    assert (
        "14 known, not logged again; this logs them: smd log results_dir=results logger=csv\n"
        in capsys.readouterr().out
    )
    verdict([entry("a", "ok", reused=True)], "smd run")
    assert "not logged" not in capsys.readouterr().out


def test_not_applicable_is_no_failure() -> None:
    assert verdict([entry("a", "ok"), entry("c", "n/a", "no ids")], "smd run") == 0


def test_a_corrupt_record_fails_its_cell_but_not_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    def corrupt() -> tuple[Record | None, bool]:
        raise RecordError("corrupt record x: delete this folder")

    journal = Journal.new()
    attempt(planned(), corrupt, journal, (1, 2))
    (found,) = journal.close()
    assert found.status == "failed"
    assert "corrupt record" in found.reason
    with pytest.raises(RecordError):
        attempt(planned(), corrupt, Journal.new(), None)


def test_an_unwritable_folder_stops_the_sweep() -> None:
    def unwritable() -> tuple[Record | None, bool]:
        raise RecordError("cannot write results: Read-only file system")

    with pytest.raises(RecordError, match="cannot write"):
        attempt(planned(), unwritable, Journal.new(), (1, 2))


def test_rerun_never_leaves_an_unknown_cell_alone(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal.new()
    attempt(planned(), lambda: (None, False), journal, None)
    assert journal.close() == []
    assert "no record" in capsys.readouterr().err


def test_a_record_is_entered_with_its_status(tmp_path: Path) -> None:
    journal = Journal.new()
    plan = planned()
    record = Record(Status.NOT_APPLICABLE, plan.cell, "needs logits", path=tmp_path)
    attempt(plan, lambda: (record, True), journal, (2, 3))
    (found,) = journal.close()
    assert (found.status, found.reason, found.reused, found.folder) == ("n/a", "needs logits", True, str(tmp_path))


def test_reasons_are_one_line() -> None:
    assert one_line(ConfigError("no model\nat x")) == "no model at x"
    assert one_line(ValueError("a\nb")) == "ValueError: a b"


def test_the_time_left_is_that_of_the_cells_that_ran() -> None:
    journal = Journal.new()
    assert journal.left(4) == ""
    journal.enter(entry("smd", "ok", reused=True))
    assert journal.left(4) == "", "a known cell says nothing of the others"
    journal.enter(replace(entry("smd", "ok"), seconds=90.0))
    assert journal.left(4) == ", 3 min left"
    assert journal.left(2) == ""
    journal.close()


def test_a_shared_journal_hears_of_jobs_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal.new()
    journal.enter(replace(entry("a", "ok"), said="a: ok"))
    journal.share(tmp_path)
    assert journal.path.parent == tmp_path / "journals"
    elsewhere = pickle.loads(pickle.dumps(journal))  # as a job on another host has it
    elsewhere.enter(replace(entry("b", "ok"), said="b: ok"))
    journal.tell()
    journal.tell()
    assert capsys.readouterr().err == "b: ok\n", "what this command entered it said itself"
    (journal.path / ".half.json").write_text('{"defense": ')  # of a job that was killed while it wrote
    assert [one.defense for one in journal.close()] == ["a", "b"]
    assert not list(tmp_path.iterdir())


def test_a_journal_is_not_shared_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(RecordError, match="choose another results_dir="):
        Journal.new().share(tmp_path / "results")


def test_what_killed_commands_left_is_removed(tmp_path: Path) -> None:
    old, young = (tmp_path / "journals" / name for name in ("old", "young"))
    for one in (old, young):
        one.mkdir(parents=True)
    os.utime(old, (0, 0))
    journal = Journal.new()
    journal.share(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)
    journal.close()


def test_commands_that_end_meanwhile_keep_no_journal_from_being_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "journals").mkdir()
    (folder / "ends between two looks").symlink_to(tmp_path / "gone")
    journal = Journal.new()
    journal.share(tmp_path)
    journal.close()
    (folder / "ends between two looks").unlink()
    folder.rmdir()
    make = tempfile.mkdtemp

    def once_too_late(**told: Any) -> str:
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        folder.rmdir()
        return make(**told)

    journal = Journal.new()
    monkeypatch.setattr(tempfile, "mkdtemp", once_too_late)
    journal.share(tmp_path)
    assert journal.path.parent == folder
    journal.close()
    assert not folder.exists()


def test_cells_whose_jobs_were_lost_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict([entry("a", "ok")], "smd run -m seed=1,2", lost=1) == 1
    assert (
        "1 cells have no record, since their jobs were lost or out of time; this runs them: smd run -m"
        in capsys.readouterr().out
    )
    assert finish(Journal.new(), "smd run -m seed=1,2", asked=2) == 1
    assert finish(Journal.new(), "smd run") == 0


def test_a_job_that_is_run_once_more_counts_its_cells_once() -> None:
    journal = Journal.new()
    for ended, place in (("ok", 1), ("failed", 2)):
        journal.enter(replace(entry("a", ended), place=place))
    journal.enter(replace(entry("a", "ok", reused=True), place=1))
    journal.enter(replace(entry("a", "ok"), place=2))
    assert [(one.status, one.reused) for one in journal.close()] == [("ok", False), ("ok", False)]
