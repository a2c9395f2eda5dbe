"""``smd board``: from a results folder or packed records to pages, and a line where there is nothing to show."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_records import make_cell, make_record

from experiments.commands.cli import main as smd
from smd_research.records import Store, pack

REFERENCE = Path(__file__).resolve().parents[3] / "results" / "reference"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    for seed in (1, 2):
        store.write(make_record(make_cell(seed=seed)))
    return store.results_dir


def shared(board: Path) -> str:
    return (board / "data" / "board.js").read_text(encoding="utf-8")


def document(path: Path) -> Any:
    """What a script of a board hands to the page."""
    text = path.read_text(encoding="utf-8")
    return json.loads(f"[{text.removeprefix('board.receive(').removesuffix(');' + chr(10))}]")[2]


def test_a_results_folder_becomes_pages(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["board", f"results_dir={results}"]) == 0
    assert capsys.readouterr().out == f"page: {results / 'board' / 'index.html'}\n"
    assert smd(["board", f"results_dir={results}", f"out={results.parent / 'there'}"]) == 0
    assert shared(results / "board") == shared(results.parent / "there")


def test_packed_records_become_the_same_pages(results: Path, tmp_path: Path) -> None:
    file = pack(Store(results).paths(), tmp_path / "packed" / "some.parquet")
    for place, out in ((results, "a"), (file, "b"), (file.parent, "c")):
        assert smd(["board", f"results_dir={place}", f"out={tmp_path / out}"]) == 0
    assert shared(tmp_path / "a") == shared(tmp_path / "b") == shared(tmp_path / "c")


def test_texts_can_be_left_out(results: Path) -> None:
    assert smd(["board", f"results_dir={results}", "texts=false"]) == 0
    assert not (results / "board" / "data" / "prompts").exists()


def test_a_table_is_made_of_the_records_that_bear_its_name(tmp_path: Path) -> None:
    if not REFERENCE.is_dir():
        pytest.skip("results/reference is not in this checkout")
    file = REFERENCE / "records" / "real_slip.parquet"
    assert smd(["board", f"results_dir={file}", f"out={tmp_path / 'board'}"]) == 0
    shown = document(tmp_path / "board" / "data" / "tables" / "real_slip.js")
    assert shown["table"]["csv"] == (REFERENCE / "real_slip.csv").read_text(encoding="utf-8")
    assert shown["claims"]["csv"] == (REFERENCE / "real_slip.claims.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_committed_table_is_made_again(tmp_path: Path) -> None:
    if not REFERENCE.is_dir():
        pytest.skip("results/reference is not in this checkout")
    assert smd(["board", f"results_dir={REFERENCE}", f"out={tmp_path / 'board'}"]) == 0
    made = {path.stem: document(path) for path in (tmp_path / "board" / "data" / "tables").iterdir()}
    assert made.keys() >= {path.stem for path in (REFERENCE / "records").iterdir()}
    for name, shown in made.items():
        assert shown["table"]["csv"] == (REFERENCE / f"{name}.csv").read_text(encoding="utf-8"), name
        claims = REFERENCE / f"{name}.claims.csv"
        assert (shown["claims"] or {}).get("csv") == (claims.read_text(encoding="utf-8") if claims.exists() else None)


def test_what_cannot_be_made_is_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, full, damaged = tmp_path / "file", tmp_path / "full", tmp_path / "damaged"
    file.write_text("")
    (full / "thesis").mkdir(parents=True)
    damaged.mkdir()
    (damaged / "x.parquet").write_text("no")
    for words, said in (
        ([f"results_dir={tmp_path / 'nothing'}"], "holds no records"),
        ([f"results_dir={results}", f"out={file}"], "is a file"),
        ([f"results_dir={results}", f"out={full}"], "holds other things than a board"),
        ([f"results_dir={results}", f"out={file}/in"], "cannot write"),
        ([f"results_dir={damaged}"], "is no file of packed records"),
        ([f"results_dir={results}", "txets=false"], "unknown key 'txets'"),
        ([f"results_dir={results}", "texts=perhaps"], "texts"),
    ):
        assert smd(["board", *words]) == 2, words
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert line.startswith("error: ")
        assert said in line
        assert shown.out == ""
    assert (full / "thesis").is_dir()
    assert not (tmp_path / "nothing").exists()
