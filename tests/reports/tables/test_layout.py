from dataclasses import replace

import pytest
from grid import BENCH_CASES as CASES
from grid import records

from smd_research.core.errors import RecordError
from smd_research.records import Status, frame_of, frame_of_sweep
from smd_research.reports.points import Series, points, rest
from smd_research.reports.render.text import markdown
from smd_research.reports.tables.layout import Figures, layout
from smd_research.reports.tables.leak_matrix import leak_matrix
from smd_research.reports.tables.summary import summary

COLUMNS = [
    Figures("none", "value", {"mode": "none"}, "ms/token"),
    Figures("SMD", "value", {"mode": "smd"}),
    Figures("peak", "peak_mb", {"mode": "smd"}),
]


def test_rows_and_columns_come_from_labels() -> None:
    table = layout(CASES, {"users": None}, COLUMNS)
    assert [[entry.text for entry in row] for row in table.rows] == [
        ["1", "4.00", "5.00", "20.0"],
        ["8", "10.0", "16.0", "–"],
    ]
    assert table.rows[0][1].interval == "3.60–4.40"


def test_declared_rows_stand_before_they_are_measured() -> None:
    table = layout(CASES, {"users": [1, 2, 8]}, COLUMNS[:2])
    assert [row[0].text for row in table.rows] == ["1", "2", "8"]
    assert [entry.text for entry in table.rows[1][1:]] == ["...", "..."]
    assert [entry.text for row in layout([], {"users": [1]}, COLUMNS).rows for entry in row] == ["1", *["..."] * 3]


def test_a_label_that_a_case_does_not_set_is_said_in_the_tables_words() -> None:
    rows = {"users": None, "reply": None}
    assert [row[1].text for row in layout(CASES[:1], rows, COLUMNS[:1]).rows] == ["none"]
    assert [row[1].text for row in layout(CASES[:1], rows, COLUMNS[:1], unset={"reply": "mga"}).rows] == ["mga"]


def test_two_measurements_for_one_place_are_refused_unless_the_best_is_asked_for() -> None:
    columns = [Figures("any", "value")]
    with pytest.raises(RecordError, match="belong in one place of column 'any'"):
        layout(CASES, {"users": None}, columns)
    table = layout(CASES, {"users": None}, [replace(columns[0], best="largest")])
    assert [row[1].text for row in table.rows] == ["5.00", "16.0"]


def test_cells_are_read_like_benches_and_say_how_they_ended() -> None:
    found = records()
    cells = [record.cell for record in found]
    broken = replace(found[3], status=Status.FAILED, reason="out of memory", metrics={})
    frame = frame_of_sweep(cells, [*found[:3], broken, *found[5:]])
    columns = [
        Figures(name, "token_accuracy", {"attack": name}, show="leak")
        for name in ("random", "nearest_token", "bayes_token", "vocab_matching")
    ]
    table = layout(frame, {"defense": None, "defense.layer": None, "defense.epsilon": None}, columns)
    rows = {(row[0].text, row[2].text): [entry.text for entry in row[3:]] for row in table.rows}
    assert rows["none", "none"] == ["0 %", "–", "failed", "..."]
    assert rows["dp_text", "16"][0] == "0 %"
    assert [row[2].text for row in table.rows if row[0].text == "dp_text"] == ["4", "8", "12", "16"]
    assert table.rows[0][3].shade == 0.0


def test_the_known_tables_show_what_has_not_run() -> None:
    found = records()
    frame = frame_of_sweep([record.cell for record in found], found[:-1])
    assert "..." in markdown(leak_matrix(frame))
    assert markdown(summary(frame_of_sweep([found[0].cell], []))).count("...") == 1


def test_options_go_with_their_part() -> None:
    found = points(frame_of(records()))
    smd = Series("token_accuracy", {"defense": "smd"}).points(found)
    assert {p.labels["attack"] for p in smd} == {"random", "prior", "partial_attention_inversion"}
    assert len({rest(p, ["attack"]) for p in smd}) == 1
    epsilon = Series("kl", {"defense": "dp_text", "defense.epsilon": [4, 8.0]}).points(found)
    assert {p.labels["defense.epsilon"] for p in epsilon} == {4, 8}
    assert {rest(p, ["defense", "attack"]) for p in epsilon} == {rest(p, ["defense", "attack"]) for p in smd}


def test_an_option_that_is_a_list_tells_cells_apart() -> None:
    record = next(record for record in records() if record.cell.defense["name"] == "smd")
    chosen = ([0], [1, 3], None)
    cells = [replace(record, cell=replace(record.cell, defense={"name": "smd", "blocks": one})) for one in chosen]
    found = Series("kl").points(points(frame_of(cells)))
    assert [p.labels["defense.blocks"] for p in found] == ["0", "1, 3", None]
    assert len({rest(p, []) for p in found}) == 3
