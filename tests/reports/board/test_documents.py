"""The documents of a board say what the records say, and nothing in them can be more than text."""

import math
import re
from pathlib import Path

import pytest
from made_board import HOSTILE, all_records, all_tables, document, hostile_record, sourced_of
from made_records import make_cell, make_record

from smd_research.core.errors import RecordError
from smd_research.records import Record, Store, pack
from smd_research.reports.board import Sourced, packed_files, sourced, write_board
from smd_research.reports.board.prompts import LETTERS
from smd_research.reports.board.write import ASSETS, script

FOUND = all_records()


def found_in(place: Path) -> list[Sourced]:
    return sourced(place, packed_files(place))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "board"
    assert write_board(sourced_of(FOUND), out, all_tables(FOUND)) == out / "index.html"
    return out


def test_every_figure_is_that_of_its_record(folder: Path) -> None:
    found = document(folder, "board.js")
    figures = found["figures"]
    rows = zip(*(figures[key] for key in ("cell", "metric", "mean", "low", "high", "n")), strict=True)
    shown = {(found["cells"]["id"][cell], found["metrics"][metric]["name"]): ends for cell, metric, *ends in rows}
    told = {(one.cell.id, name): estimate for one in FOUND for name, estimate in one.metrics.items()}
    assert shown.keys() == told.keys()
    for key, (*ends, n) in shown.items():
        estimate = told[key]
        for end, value in zip(ends, (estimate.mean, estimate.low, estimate.high), strict=True):
            assert math.isnan(value) if end is None else math.isclose(end, value, rel_tol=1e-6)
        assert n == estimate.n


def test_cells_name_their_parts_and_settings(folder: Path) -> None:
    found = document(folder, "board.js")
    cells, parts = found["cells"], found["parts"]
    for place, record in enumerate(FOUND):
        assert parts["defense"][cells["defense"][place]]["name"] == record.cell.defense["name"]
        assert cells["seed"][place] == record.cell.seed
        assert cells["status"][place] == record.status
        assert cells["task"][place] == -1
    assert {len(column) for column in cells.values()} == {len(FOUND)}


def test_cells_of_one_setting_differ_in_the_attack_alone(folder: Path) -> None:
    cells = document(folder, "board.js")["cells"]
    one = {(record.cell.defense["name"], str(record.cell.defense), record.cell.seed) for record in FOUND}
    assert len(set(cells["setting"])) == len(one)


def test_tokens_and_guesses_come_back(folder: Path) -> None:
    record = next(one for one in FOUND if len(one.items) and one.texts and one.cell.attack["name"] == "bayes_token")
    cell = document(folder, f"cells/{record.cell.id}.js")
    texts = document(folder, f"prompts/{cell['prompts']['set']}.js")
    for i, row in enumerate(record.items.to_dict("records")):
        wrong = iter(cell["prompts"]["wrong"][i])
        guess = [
            truth if letter == "r" else next(wrong) if letter == "w" else None
            for truth, letter in zip(texts["tokens"][i], cell["prompts"]["verdicts"][i], strict=True)
        ]
        assert texts["tokens"][i] == list(row["truth_tokens"])
        assert guess == list(row["guess_tokens"])
        assert [span[2] for span in texts["secrets"][i]] == [span["type"] for span in row["spans"]]


def test_equal_prompts_are_written_once(folder: Path) -> None:
    attacked = [one for one in FOUND if len(one.items) and one.texts]
    assert len(list((folder / "data" / "prompts").iterdir())) < len(attacked) / 4


def test_letters_part_all_verdicts() -> None:
    assert len(set(LETTERS.values())) == len(LETTERS)


def test_a_record_without_texts_keeps_its_numbers_and_no_text(folder: Path) -> None:
    bare = next(one for one in FOUND if not one.texts)
    prompts = document(folder, f"cells/{bare.cell.id}.js")["prompts"]
    assert prompts["lengths"] == [2]
    assert prompts["found"] == [[["name", 1, 1]]]
    assert prompts["scores"] == {"token_accuracy": [0.5]}
    assert "set" not in prompts


def test_a_board_without_texts_quotes_nothing(tmp_path: Path) -> None:
    marked = "no luck"
    write_board(sourced_of(FOUND), tmp_path / "board", texts=False)
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "board" / "data").rglob("*.js"))
    assert not (tmp_path / "board" / "data" / "prompts").exists()
    assert marked not in written
    assert "bisoprolol" not in written


def test_no_text_ends_a_script(folder: Path) -> None:
    for path in (folder / "data").rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert "<" not in text
        assert text.count("\n") == 1
        assert not set("\u2028\u2029") & set(text)
    record = hostile_record()
    cell = document(folder, f"cells/{record.cell.id}.js")
    assert document(folder, f"prompts/{cell['prompts']['set']}.js")["names"] == [HOSTILE]
    assert cell["environment"] == {"python": HOSTILE}


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        script("board", "", math.nan)


def test_a_command_does_not_say_where_its_record_went(folder: Path) -> None:
    cell = document(folder, f"cells/{hostile_record().cell.id}.js")
    assert cell["command"] == f"smd run {HOSTILE}"


def test_a_table_leads_to_its_cells_and_counts_its_verdicts(folder: Path) -> None:
    (head,) = document(folder, "board.js")["tables"]
    assert head["verdicts"] == {"does not": 1, "holds": 1, "undecided": 1}
    table = document(folder, "tables/summary.js")["table"]
    ids = {cell for row in table["rows"] for entry in row for cell in entry.get("ids", [])}
    assert ids
    assert ids <= set(document(folder, "board.js")["cells"]["id"])
    assert "best attack" in table["csv"].splitlines()[0]


def test_equal_records_give_equal_boards(folder: Path, tmp_path: Path) -> None:
    write_board(sourced_of(FOUND), tmp_path / "again", all_tables(FOUND))
    first, again = (
        {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for place in (folder, tmp_path / "again")
    )
    assert first == again


def test_nothing_is_asked_of_a_network(folder: Path) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="([^"]+)"', html)
    assert not re.search(r'(?:src|href)="(?:https?:|//)', html)
    assert "default-src 'none'" in html
    own = [path for path in ASSETS.rglob("*.js") if path.parent.name == "scripts"]
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttpRequest", text), path
        assert f'src="scripts/{path.name}"' in html


def test_the_library_comes_with_its_licence(folder: Path) -> None:
    assert "Apache License" in (folder / "echarts" / "LICENSE").read_text(encoding="utf-8")
    for name in ("LICENSE-d3", "LICENSE-zrender"):
        assert "Redistribution" in (folder / "echarts" / name).read_text(encoding="utf-8")
    assert "Apache ECharts" in (folder / "echarts" / "NOTICE").read_text(encoding="utf-8")


def test_a_board_replaces_a_board_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "board"
    write_board(sourced_of(FOUND[-1:]), out)
    (out / "data" / "cells" / "left-behind.js").write_text("")
    write_board(sourced_of(FOUND[-1:]), out)
    assert not (out / "data" / "cells" / "left-behind.js").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(RecordError, match="other things than a board"):
        write_board(sourced_of(FOUND[-1:]), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    with pytest.raises(RecordError, match="is a file"):
        write_board(sourced_of(FOUND[-1:]), tmp_path / "mine" / "thesis.txt")


def test_records_are_found_in_cells_and_packed_and_each_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    first, second = (store.write(make_record(make_cell(seed=seed))) for seed in (1, 2))
    assert first.path
    assert second.path
    pack([first.path, second.path], tmp_path / "results" / "tables" / "records" / "some.parquet")
    found = found_in(tmp_path / "results")
    assert [one.record.cell.seed for one in found] == [1, 2]
    assert found[0].sources == (f"cells/{first.path.name}", "tables/records/some.parquet")
    packed = pack([first.path], tmp_path / "alone" / "one.parquet")
    assert [one.sources for one in found_in(packed)] == [("one.parquet",)]
    assert [one.sources for one in found_in(packed.parent)] == [("one.parquet",)]


def test_of_two_records_of_a_cell_the_later_counts(tmp_path: Path) -> None:
    def at(time: str, accuracy: float) -> Record:
        made = make_record(accuracy=accuracy)
        return Record(made.status, made.cell, "", made.metrics, made.items, {"finished_at": time})

    early = Store(tmp_path / "a").write(at("2026-01-01T00:00:00Z", 0.2))
    late = Store(tmp_path / "b").write(at("2026-02-01T00:00:00Z", 0.3))
    for name, record in (("one", late), ("two", early)):
        assert record.path
        pack([record.path], tmp_path / "packed" / f"{name}.parquet")
    (found,) = found_in(tmp_path / "packed")
    assert found.record.metrics["token_accuracy"].mean == 0.3
    assert found.sources == ("one.parquet", "two.parquet")


def test_a_place_without_records_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no records"):
        found_in(tmp_path)
