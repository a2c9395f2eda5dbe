"""Scores anew from items: what a run wrote is what its items give, and what an older version wrote is mended."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_records import make_cell, make_record

from experiments.commands.run import main as run
from experiments.commands.score import main as score
from experiments.trials.rescoring import obstacle, rescored
from smd_research.metrics import SCORES, Estimate
from smd_research.records import Record, Status, Store, without_texts

WORDS = [
    "defense=split",
    "attack=vocab_matching",
    "n_prompts=4",
    "prompt_tokens=8",
    "max_new_tokens=2",
    "data=personal",
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Record:
    folder = tmp_path_factory.mktemp("recorded")
    assert run([*WORDS, f"results_dir={folder}"]) == 0
    (record,) = Store(folder).records()
    return record


def test_what_a_run_wrote_is_what_its_items_give(recorded: Record) -> None:
    found = rescored(recorded)
    assert found.metrics == recorded.metrics
    pd.testing.assert_frame_equal(found.items, recorded.items)


def older(record: Record) -> Record:
    """As an earlier version would have scored it: one prompt as the control, no excess, another interval."""
    items = record.items.drop(columns=[name for name in record.items if name.startswith("excess_")])
    items = items.assign(control_token_accuracy=0.0, token_accuracy=0.5)
    kept = {name: one for name, one in record.metrics.items() if not name.startswith("excess_")}
    kept |= {"control_token_accuracy": Estimate(0.0, 0.0, 0.1, 4), "token_accuracy": Estimate(0.5, -0.2, 1.2, 4)}
    return replace(record, metrics=kept, items=items, scored=1)


def test_an_older_record_gets_todays_numbers(
    recorded: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    written = store.write(older(recorded))
    assert score([f"results_dir={tmp_path}"]) == 0
    assert "1 record scored anew" in capsys.readouterr().out
    (found,) = store.records()
    assert found.scored == SCORES
    assert found.metrics == recorded.metrics
    assert found.environment == written.environment, "nothing was run"
    before = (found.path or tmp_path).stat().st_mtime_ns
    assert score([f"results_dir={tmp_path}"]) == 0
    assert "1 record up to date" in capsys.readouterr().out
    assert (found.path or tmp_path).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (make_record(status=Status.FAILED, reason="no room"), "no scores"),
        (make_record(make_cell(task={"name": "note_type"})), "part of the texts"),
        (make_record(), "rerun=always"),
        (without_texts(make_record()), "not recorded"),
    ],
)
def test_what_cannot_be_scored_anew_says_why_and_stays(
    record: Record, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in obstacle(record)
    with pytest.raises(ValueError, match=why):
        rescored(record)
    Store(tmp_path).write(replace(record, scored=1))
    assert score([f"results_dir={tmp_path}"]) == 0
    assert why in capsys.readouterr().out
    (found,) = Store(tmp_path).records()
    assert found.scored == 1


def test_a_folder_without_records_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score([f"results_dir={tmp_path}"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no records" in line
