import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from grid import records
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from smd_research.records import Record, Status, Store, frame_of, load
from smd_research.reports.render import numbers as text_of
from smd_research.reports.render.text import comma_separated, fitted, markdown, show, terminal, write_table
from smd_research.reports.tables.leak_matrix import leak_matrix
from smd_research.reports.tables.secret_types import secrets_by_type
from smd_research.reports.tables.summary import summary
from smd_research.reports.tables.table import Table, broken


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(records())


def column(table: Table, title: str) -> list[str]:
    index = [c.title for c in table.columns].index(title)
    return [row[index].text for row in table.rows]


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    show(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary_names_the_best_attack_beside_chance_and_cost(frame: pd.DataFrame) -> None:
    table = summary(frame)
    assert [c.title for c in table.columns] == [
        "defense", "best attack", "secrets", "tokens", "chance", "leak", "perplexity", "KL", "first token", "per token",
        "to provider", "to user",
    ]  # fmt: skip
    attacks = dict(zip(column(table, "defense"), column(table, "best attack"), strict=True))
    assert attacks["smd"] == "partial_attention_inversion"
    assert attacks["split layer=4"] == "vocab_matching"
    assert attacks["none"] == "prior *"
    assert any("untested" in note for note in table.footnotes)


def test_every_number_knows_its_cell(frame: pd.DataFrame) -> None:
    ids = set(frame["id"])
    for row in summary(frame).rows:
        for cell in row[1:]:
            assert cell.ids
            assert set(cell.ids) <= ids


def test_leak_matrix_puts_baselines_first_and_marks_what_does_not_apply(frame: pd.DataFrame) -> None:
    table = leak_matrix(frame)
    assert [c.title for c in table.columns][:3] == ["defense", "random", "prior"]
    smd = next(row for row in table.rows if row[0].text == "smd")
    nearest = smd[[c.title for c in table.columns].index("nearest_token")]
    assert nearest.text == "–"
    assert "needs" in nearest.note
    assert any("does not show" in note for note in table.footnotes)


def test_failures_are_named_in_both_tables() -> None:
    found = records()
    broke = replace(found[-1], status=Status.FAILED, reason="ProtocolError: the peer\nwent away", metrics={})
    frame = frame_of([*found[:-1], broke])
    assert any("1 of" in note and "failed" in note for note in summary(frame).footnotes)
    matrix = leak_matrix(frame)
    assert any("the peer went away" in note for note in matrix.footnotes)
    assert "failed" in [cell.text for row in matrix.rows for cell in row]


def test_markdown_is_one_line_a_row(frame: pd.DataFrame) -> None:
    lines = markdown(summary(frame)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 8
    assert len({line.count("|") for line in rows}) == 1
    assert "89 % (64–97)" in markdown(summary(frame))


def test_csv_holds_numbers_intervals_and_cells(frame: pd.DataFrame) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(summary(frame)))))
    smd = next(row for row in rows if row["defense"] == "smd")
    assert 0.8 < float(smd["secrets (recovered)"]) < 1
    assert float(smd["secrets (recovered) low"]) < float(smd["secrets (recovered)"])
    assert smd["secrets (recovered) n"] == "12"
    assert smd["secrets (recovered) cells"] in set(frame["id"])


def test_a_wide_terminal_shows_all_and_a_narrow_one_says_what_it_left_out(frame: pd.DataFrame) -> None:
    table = summary(frame)
    assert "to user" in " ".join(printed(table, 160).split()) or "user" in printed(table, 160)
    narrow = printed(table, 80)
    assert "No room here for" in narrow
    assert "…" not in narrow
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 80


def test_a_pipe_gets_the_whole_table(frame: pd.DataFrame) -> None:
    console = Console(file=io.StringIO())
    show(summary(frame), console)
    assert isinstance(console.file, io.StringIO)
    assert "No room" not in console.file.getvalue()


def test_fitting_keeps_what_fits(frame: pd.DataFrame) -> None:
    table = summary(frame)
    assert fitted(table, Console(width=200)) is table
    assert terminal(table).columns


def test_files_of_a_table(frame: pd.DataFrame, tmp_path: Path) -> None:
    paths = write_table(leak_matrix(frame), tmp_path / "tables", "leak")
    assert [path.name for path in paths] == ["leak.md", "leak.csv", "leak.tex", "leak.png"]
    with Image.open(paths[3]) as picture:
        assert picture.width > picture.height > 300


def test_equal_records_give_equal_pictures(frame: pd.DataFrame, tmp_path: Path) -> None:
    one, two = (write_table(leak_matrix(frame), tmp_path / name, "t")[3].read_bytes() for name in "ab")
    assert one == two


def test_tables_of_nothing_are_empty_and_render() -> None:
    for table in (summary(frame_of([])), leak_matrix(frame_of([]))):
        assert table.rows == ()
        assert markdown(table)
        assert printed(table, 100)


def test_secrets_by_type_come_from_the_prompts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record in records():
        store.write(record)
    table = secrets_by_type(load(tmp_path))
    assert [c.title for c in table.columns] == ["defense", "best attack", "date", "name", "record number"]
    assert "none" not in column(table, "defense")
    split = next(row for row in table.rows if row[0].text == "split layer=4")
    assert all(cell.value > 0.7 and cell.n == 12 for cell in split[2:])


def test_options_of_the_attack_stand_with_it() -> None:
    def with_beam(record: Record, beam: int) -> Record:
        return replace(record, cell=replace(record.cell, attack={"name": "vocab_matching", "beam": beam}))

    base = next(r for r in records() if r.cell.attack["name"] == "vocab_matching" and r.status is Status.OK)
    table = leak_matrix(frame_of([with_beam(base, 1), with_beam(base, 4)]))
    assert [c.title for c in table.columns][1:] == ["vocab_matching beam=1", "vocab_matching beam=4", "control"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 %"), (1, "100 %"), (0.974, "97 %"), (0.996, "99.6 %"), (0.9999, "> 99.9 %"), (0.0001, "< 0.1 %")],
)
def test_shares_never_round_to_an_end_they_did_not_reach(value: float, text: str) -> None:
    assert text_of.share(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0998, "", "0.0998"),
        (10.03, "", "10.0"),
        (1234.5, "", "1,234"),
        (2e-12, "", "2e-12"),
        (3.2e5, "B", "320 kB"),
        (4100, "B", "4.1 kB"),
        (312, "B", "312 B"),
        (float("nan"), "", "–"),
    ],
)
def test_quantities_have_three_digits(value: float, unit: str, text: str) -> None:
    assert text_of.quantity(value, unit) == text


@settings(max_examples=60, deadline=None)
@given(name=st.from_regex(r"[a-z]{1,12}([_ ][a-z]{1,12}){0,4}", fullmatch=True), width=st.integers(4, 30))
def test_breaking_a_name_loses_nothing(name: str, width: int) -> None:
    lines = broken(name, width).split("\n")
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(len(line) <= max(width, 13) for line in lines)
