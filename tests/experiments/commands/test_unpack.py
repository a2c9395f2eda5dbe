"""From a table's packed records back to the table."""

from pathlib import Path

import pytest
from made_records import make_record

from experiments.commands.table import main as table
from experiments.commands.unpack import main as unpack
from smd_research.records import Store, pack

WORDS = ["table=vocab_matching", "defense=none", "attack=random", "n_prompts=1", "prompt_tokens=4", "max_new_tokens=1"]


def test_a_table_leaves_its_records_from_which_it_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    words = [*WORDS, "defense.layer=1", "defense.permute=none", "defense=split"]
    assert table([*words, f"results_dir={here}"]) == 0
    file = here / "tables" / "records" / "vocab_matching.parquet"
    assert unpack([f"packed={file}", f"results_dir={there}"]) == 0
    assert "1 records into" in capsys.readouterr().out
    assert table([*words, f"results_dir={there}", "rerun=never"]) == 0
    tables = [(folder / "tables" / "vocab_matching.md").read_text() for folder in (here, there)]
    assert tables[0] == tables[1]
    assert (there / "tables" / "records" / file.name).read_bytes() == file.read_bytes()


def test_records_that_are_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    file = pack(store.paths(), tmp_path / "x.parquet")
    assert unpack([f"packed={file}", f"results_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out.endswith("; 1 were there before and stay\n")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unpack([f"packed={tmp_path}/no.parquet", f"results_dir={tmp_path}"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot read" in line
    assert unpack([f"results_dir={tmp_path}"]) == 2
    assert "needs packed=" in capsys.readouterr().err
