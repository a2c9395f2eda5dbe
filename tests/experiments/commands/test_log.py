"""Records as runs of Weights & Biases, when they are made and later; wandb is real and offline, cells are not run."""

import getpass
import json
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_records import make_cell, make_record
from wandb_log import runs

from experiments.commands.cli import main as smd
from experiments.trials import trial
from experiments.trials.plan import Plan
from smd_research.core.errors import NotApplicableError
from smd_research.records import Record, Status, Store, without_texts

SWEEP = ["-m", "defense=dp_text", "attack=random,bayes_token", "defense.survival=0.1,0.3,0.9", "n_prompts=2"]
RESULTS = Path("results")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What wandb keeps for itself lies apart, and no cell is run: its record is made by hand."""
    home = tmp_path_factory.mktemp("home")
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(home))

    def made(plan: Plan, *_: Any) -> Record:
        if plan.cell.attack["name"] == "reading":
            raise NotApplicableError(f"needs token ids, see {home}/notes.txt")
        return make_record(plan.cell, accuracy=0.75)

    monkeypatch.setattr(trial, "trial", made)


def lasting(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Runs by their id, without what a clock says and the folders that it names."""
    kept = {}
    for run in found:
        sides = {name: {k: v for k, v in run[name].items() if not k.startswith("_")} for name in ("summary", "shown")}
        kept[run["id"]] = {key: value for key, value in run.items() if key != "files"} | sides
    return kept


def test_a_sweep_is_a_group_of_named_runs_that_are_sent_later_as_they_were_sent_at_once(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(["run", *SWEEP, "logger=wandb"]) == 0
    said = capsys.readouterr().out
    assert said.count("wandb sync results/wandb/offline-run-*") == 1
    at_once = runs(RESULTS)
    assert [run["name"] for run in at_once] == [
        f"dp_text attack={attack} defense.survival={survival}"
        for attack in ("bayes_token", "random")
        for survival in (0.1, 0.3, 0.9)
    ]
    (group,) = {run["group"] for run in at_once}
    assert group.startswith("sweep of attack, defense.survival (")
    first = at_once[3]
    assert first["tags"] == ["model=embedded", "data=synthetic", "defense=dp_text", "attack=random", "status=ok"]
    assert first["id"] == first["config"]["cell_id"]
    assert (first["summary"]["token_accuracy"], first["summary"]["token_accuracy/high"]) == (0.75, 0.9)
    assert (first["shown"]["items._type"], first["shown"]["items.nrows"]) == ("table-file", 2)
    assert (first["shown"]["numbers._type"], first["shown"]["numbers.format"]) == ("image-file", "png")
    (table,) = (file for file in first["files"] if file.endswith(".table.json"))
    assert json.loads(Path(table).read_text())["columns"] == ["prompt", "source", "length", "token_accuracy"]

    assert smd(["run", *SWEEP, "logger=wandb"]) == 0
    said = capsys.readouterr().out
    assert "wandb sync" not in said
    (later,) = (line for line in said.splitlines() if line.startswith("6 known, not logged again"))
    assert smd(shlex.split(later.partition(": smd ")[2])) == 0
    assert "6 of 6 records sent to wandb" in capsys.readouterr().out
    assert lasting(runs(RESULTS)) == lasting(at_once)
    assert len(list((RESULTS / "wandb").iterdir())) == 6, "a cell is one run, however often it is sent"


def test_the_cells_of_a_table_are_one_group(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["table", "table=inversion", "logger=wandb"]) == 0
    assert capsys.readouterr().out.count("wandb sync results/wandb/offline-run-*") == 1
    found = runs(RESULTS)
    assert {run["group"] for run in found} == {"table inversion small"}
    attacks = ("partial_attention_inversion", "prior", "random")
    assert [run["name"] for run in found] == [f"smd attack={attack}" for attack in attacks]


def test_nothing_of_the_machine_is_in_what_wandb_writes(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/smd-of-mine", "run", "said_on_the_line"])
    words = ["defense=none", "attack=random,reading", f"results_dir={in_folder / 'results'}", "logger=wandb"]
    assert smd(["run", "-m", *words]) == 0
    written = b"\n".join(path.read_bytes() for path in (RESULTS / "wandb").rglob("*") if path.is_file())
    assert b"token_accuracy" in written, "the search reads what is there"
    assert b"needs token ids, see notes.txt" in written
    told = [str(in_folder), str(Path.home()), str(Path.cwd()), "/tmp", sys.executable, "/somewhere", "said_on_the_line"]
    told += [os.environ["WANDB_DATA_DIR"], "results_dir", str(Path(__file__).parents[3]), "git@", "https://"]
    told += [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 4]
    assert [word for word in told if word.encode() in written] == []
    assert not list((RESULTS / "wandb").rglob("*.log"))


def test_texts_are_never_sent(in_folder: Path) -> None:
    for seed, record in enumerate((make_record(), without_texts(make_record(make_cell(seed=1))))):
        Store(RESULTS).write(record)
        assert smd(["log", f"cells=s{seed}"]) == 0
    written = b"\n".join(path.read_bytes() for path in (RESULTS / "wandb").rglob("*") if path.is_file())
    assert not any(word in written for word in (b"patient", b"Ann", b"Bob"))
    tables = [json.loads(path.read_text()) for path in (RESULTS / "wandb").rglob("*.table.json")]
    assert tables[0] == tables[1]
    assert tables[0]["data"][0] == ["p0", "", 4, 0.5]


def test_a_failed_cell_is_sent_with_its_status(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = make_cell(command="smd run defense=smd defense.audit=norm n_prompts=2 seed=0 data.path=/there/notes.jsonl")
    Store(RESULTS).write(make_record(cell, status=Status.FAILED, reason="cannot read /there/notes.jsonl: damaged"))
    assert smd(["log", "cells=[smd-partial,s0-]"]) == 0
    (run,) = runs(RESULTS)
    assert "status=failed" in run["tags"]
    assert run["config"]["reason"] == "cannot read notes.jsonl: damaged"
    assert run["name"] == f"{cell.readable} n_prompts=2", "an option that the cell has not is not said"
    assert run["group"] == f"run {cell.readable}"
    assert not run["shown"]


def test_csv_takes_records_later_too(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        Store(RESULTS).write(make_record(make_cell(seed=seed)))
    assert smd(["log", "logger=csv"]) == 0
    assert "2 of 2 records sent to csv" in capsys.readouterr().out
    assert len(list((RESULTS / "csv").iterdir())) == 2
    shutil.rmtree(RESULTS / "csv")
    (RESULTS / "csv").write_text("in the way")
    assert smd(["log", "logger=csv"]) == 1
    assert "2 of 2 records were not sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 1, "results holds no records"),
        (["results_dir=results/there", "cells=dp_txt"], 1, "no record in results/there is named 'dp_txt'"),
        (["results_dir=results/there", "cells=smd", "logger=none"], 2, "choose logger=wandb or logger=csv"),
        (["logger=wnadb"], 2, "unknown logger 'wnadb': did you mean 'wandb'?"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(
    words: list[str], code: int, said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store("results/there").write(replace(make_record()))
    assert smd(["log", *words]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("error: ") == 1
    assert not list(Path("results").rglob("wandb"))
