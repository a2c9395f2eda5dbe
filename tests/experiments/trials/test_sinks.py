"""Loggers: CSV, Weights & Biases offline, and a failing one that costs a warning only."""

import csv
from pathlib import Path

import pytest

from experiments.trials.sinks import log
from smd_research.core.cell import Cell
from smd_research.core.errors import ConfigError
from smd_research.metrics import Estimate
from smd_research.records import Record, Status


def record(seed: int = 0) -> Record:
    cell = Cell({"name": "m"}, {"name": "d"}, {"name": "smd"}, {"name": "prior"}, seed=seed)
    return Record(Status.OK, cell, metrics={"token_accuracy": Estimate(0.5, 0.25, 0.75, 4)})


def test_csv_has_one_file_a_cell(tmp_path: Path) -> None:
    for seed in (0, 1):
        log({"name": "csv"}, record(seed), tmp_path)
    files = sorted((tmp_path / "csv").iterdir())
    assert [file.stem for file in files] == sorted(f"smd-prior-m-d-s{s}-{record(s).cell.id}" for s in (0, 1))
    with files[0].open() as file:
        (row,) = csv.DictReader(file)
    assert row == {"metric": "token_accuracy", "mean": "0.5", "low": "0.25", "high": "0.75", "n": "4"}


def test_none_writes_nothing(tmp_path: Path) -> None:
    log({"name": "none"}, record(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="logger 'wnadb' is unknown"):
        log({"name": "wnadb"}, record(), tmp_path)


def test_a_failing_logger_costs_a_warning_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "csv").write_text("in the way")
    log({"name": "csv"}, record(), tmp_path)
    assert "warning: logger=csv failed" in capsys.readouterr().err


@pytest.mark.slow
def test_wandb_offline_makes_one_finished_run_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for seed in (0, 1):
        log({"name": "wandb", "project": "smd-research", "mode": "offline"}, record(seed), tmp_path)
        assert wandb.run is None, "the run was finished"
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert all(list(run.glob("run-*.wandb")) for run in runs)
