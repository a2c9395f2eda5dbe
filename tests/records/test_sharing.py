"""What is shared names no folder of whoever made it, and is the same cell."""

from pathlib import Path

import pytest
from made_records import make_cell, make_record

from smd_research.core.errors import RecordError
from smd_research.records import Record, Status, Store
from smd_research.records.packing import Row, checked, row_of
from smd_research.records.sharing import shared


def written(record: Record, place: Path) -> tuple[Row, Record]:
    kept = Store(place).write(record)
    assert kept.path is not None
    return row_of(kept.path), kept


def test_a_record_without_folders_stays_byte_for_byte(tmp_path: Path) -> None:
    row, record = written(make_record(make_cell(command="smd run defense=smd 'attack.judges=[a,b]'")), tmp_path)
    assert shared(row, record) == (row, record)


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("smd run defense=smd results_dir=/home/ann/r", "smd run defense=smd"),
        ("smd run data=jsonl data.path=/home/ann/notes.jsonl", "smd run data=jsonl data.path=notes.jsonl"),
        ("smd run data=jsonl data.path=mine/notes.jsonl", "smd run data=jsonl data.path=notes.jsonl"),
        ("smd run transport=tcp address=ann.example:7000", "smd run transport=tcp"),
        ("smd run task=file task.train_path=~/a.csv", "smd run task=file task.train_path=a.csv"),
        ("smd run defense.note=/srv/x 'a b'", "smd run defense.note=x 'a b'"),
        ("smd run 'defense.note=/home/ann lee/x'", "smd run defense.note=x"),
        ("""smd run 'data.path="~/my notes.jsonl"'""", """smd run 'data.path="my notes.jsonl"'"""),
    ],
)
def test_folders_are_taken_out_of_a_command(command: str, left: str, tmp_path: Path) -> None:
    row, record = written(make_record(make_cell(command=command)), tmp_path)
    told, read_again = shared(row, record)
    assert read_again.cell.command == left
    assert read_again.cell.id == record.cell.id
    assert checked(tmp_path, *told).cell.command == left
    assert b"/home" not in b"".join(told[1].values())


def test_a_path_whose_content_counts_keeps_its_last_word(tmp_path: Path) -> None:
    data = {"name": "jsonl-notes", "path": "/home/ann/notes.jsonl", "sha256": "ab" * 8}
    row, record = written(make_record(make_cell(data=data)), tmp_path)
    told, read_again = shared(row, record)
    assert read_again.cell.data["path"] == "notes.jsonl"
    assert (told[0], read_again.cell.id) == (row[0], record.cell.id)


def test_a_reason_loses_its_folders(tmp_path: Path) -> None:
    row, record = written(make_record(status=Status.FAILED, reason="no file /home/ann/x.csv here"), tmp_path)
    told, _ = shared(row, record)
    assert checked(tmp_path, *told).reason == "no file x.csv here"


def test_a_folder_that_is_part_of_the_cell_is_refused(tmp_path: Path) -> None:
    row, record = written(make_record(make_cell(model={"name": "local", "path": "/home/ann/model"})), tmp_path)
    with pytest.raises(RecordError, match="cannot be shared") as raised:
        shared(row, record)
    assert "/home" not in str(raised.value)
