"""Every kind of defense in one table and one figure: grouped by secret, the best attack, what it costs."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import make_cell
from PIL import Image

from smd_research.core.errors import RecordError
from smd_research.metrics import Estimate
from smd_research.records import Item, Record, Status, Store, frame_of, items_frame
from smd_research.reports.figures.overview import overview, overview_figure
from smd_research.reports.render.page import write_report
from smd_research.reports.tables.by_secret import by_secret, rows_by_secret


def record(defense: str, attack: str, metrics: Mapping[str, float], **more: object) -> Record:
    cell = replace(make_cell(), defense={"name": defense}, attack={"name": attack}, **more)
    return Record(Status.OK, cell, "", {name: Estimate(value, n=4) for name, value in metrics.items()})


PROMPT = {"kl": 0.0, "bytes_to_untrusted": 1e3, "bytes_to_trusted": 2e3}
TASK = {"task": {"name": "note_type"}, "tuning": {"name": "full"}}
RECORDS = [
    record("none", "reading", {"span_exact": 1.0, "tpot_ms": 2.0, **PROMPT}),
    record("none", "prior", {"span_exact": 0.1, "tpot_ms": 2.0, **PROMPT}),
    record("smd", "vocab_matching", {"span_exact": 0.2, "tpot_ms": 6.0, **PROMPT}),
    record("smd", "partial_attention_inversion", {"span_exact": 0.9, "tpot_ms": 6.0, **PROMPT}),
    record("po", "prior", {"span_exact": 0.1, "tpot_ms": 6.0, **PROMPT}),
    record("slip", "finetune_lora", {"rec_scratch": 0.3, "tpot_ms": 20.0, **PROMPT}),
    record("none", "combined", {"token_recovery": 1.0, "accuracy": 0.9, "tune_s": 10.0}, **TASK),
    record(
        "shaking",
        "combined",
        {"span_exact": 1.0, "token_recovery": 0.7, "control_token_recovery": 0.06, "tune_s": 15.0},
        **TASK,
    ),
]


def test_rows_are_grouped_by_what_is_secret_and_name_the_best_attack() -> None:
    rows = rows_by_secret(frame_of(RECORDS))
    found = [(row.secret.name, row.battery.defense, row.leak.attack, row.leak.value) for row in rows]
    assert found == [
        ("prompt", "none", "reading", 1.0),
        ("prompt", "smd", "partial_attention_inversion", 0.9),
        ("weights", "slip", "finetune_lora", 0.3),
        ("tuned texts", "none", "combined", 1.0),
        ("tuned texts", "shaking", "combined", 0.7),
    ]  # po met no attack that reads the protocol: nothing is known of it


def test_chance_and_what_is_paid_stand_beside() -> None:
    _, smd, slip, _, shaking = rows_by_secret(frame_of(RECORDS))
    assert (smd.chance, smd.slower, smd.traffic) == (0.1, 3.0, 3e3)
    assert (slip.chance, slip.slower) == (0.0, 10.0)
    assert (shaking.chance, shaking.slower, shaking.traffic) == (0.06, 1.5, None)


def test_whoever_picks_one_of_several_streams_is_right_by_chance() -> None:
    found = {"span_exact": 0.0, "control_span_exact": 0.0, "stream_found": 0.0, "stream_chance": 0.25, **PROMPT}
    (row,) = rows_by_secret(frame_of([record("po", "pick_stream", found)]))
    assert (row.leak.value, row.chance) == (0.0, 0.25)
    better = record("po", "pick_stream", {**found, "control_span_exact": 0.3})
    assert [row.chance for row in rows_by_secret(frame_of([better]))] == [0.3]
    # an attack on one stream picks none: the chance of picking is not its own
    alone = record("po", "guess_and_verify", {"span_exact": 0.5, "control_span_exact": 0.1, **PROMPT})
    rows = rows_by_secret(frame_of([record("po", "pick_stream", found), alone]))
    assert [(row.leak.attack, row.chance) for row in rows] == [("guess_and_verify", 0.1)]
    table = by_secret(frame_of([record("po", "pick_stream", found)]))
    assert [entry.text for entry in table.rows[0]][3:5] == ["0 %", "25 %"]


def test_the_table_writes_units_beside_figures_of_several_metrics() -> None:
    table = by_secret(frame_of(RECORDS))
    texts = [[entry.text for entry in row] for row in table.rows]
    assert texts[1][3:] == ["90 %", "10 %", "KL 0 nats", "6.00 ms", "3.0x", "3 kB"]
    assert texts[3][5:8] == ["accuracy 90 %", "10.0 s", "1.0x"]


def test_what_a_link_would_take_stands_last_where_one_is_modelled() -> None:
    far = replace(RECORDS[0], metrics={**RECORDS[0].metrics, "modelled_s": Estimate(1.5, n=4)})
    table = by_secret(frame_of([far, *RECORDS[2:]]))
    assert table.columns[-1].title == "on the link"
    assert [row[-1].text for row in table.rows] == ["1.50 s", *["–"] * (len(table.rows) - 1)]
    assert "on the link" not in [column.title for column in by_secret(frame_of(RECORDS)).columns]


def test_the_figure_shows_each_row_and_group(tmp_path: Path) -> None:
    figure = overview_figure(frame_of(RECORDS))
    shown = {text.get_text() for axes in figure.axes for text in axes.texts}
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["none", "smd", "slip", "none", "shaking"]
    assert sum(text.startswith("secret: ") for text in shown) == 3
    assert {"3.0x", "10.0x", "3 kB"} <= shown
    with Image.open(overview(frame_of(RECORDS), tmp_path / "overview.png")) as image:
        assert image.width > image.height


def test_what_ends_below_its_control_stands_at_the_edge_with_its_figure() -> None:
    slip = replace(RECORDS[5], metrics={**RECORDS[5].metrics, "rec_scratch": Estimate(-1.73, n=4)})
    assert slip.cell.defense["name"] == "slip"
    leak = overview_figure(frame_of([*RECORDS[:3], slip])).axes[0]
    assert "-173 %" in {text.get_text() for text in leak.texts}
    assert all(min(line.get_xdata()) >= 0 for line in leak.lines)


def test_nothing_attacked_is_no_figure() -> None:
    with pytest.raises(RecordError, match="run attacks"):
        overview_figure(frame_of(RECORDS[4:5]))


def test_the_page_of_a_folder_with_several_secrets_is_grouped_by_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for one in RECORDS:
        store.write(one)
    shown = write_report(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Every kind of defense, by what is secret" in shown
    assert "<h2>Overview</h2>" in shown
    assert "<h2>Summary</h2>" not in shown


def test_prompts_stand_under_what_parts_their_defenses_and_under_no_other_setting(tmp_path: Path) -> None:
    store, frame = Store(tmp_path), {"span_exact": 1.0}
    cells = [
        record("none", "reading", frame),
        record("smd", "partial_attention_inversion", frame),
        record("none", "reading", frame, **TASK, n_prompts=50, max_new_tokens=0),
        record("shaking", "combined", frame, **TASK, n_prompts=50, max_new_tokens=0),
    ]
    for one in cells:
        store.write(replace(one, items=items_frame([Item("one", frame, ["a"], ["a"])])))
    shown = write_report(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall("<summary>(.*?)</summary>", shown) == [
        "none: reading",
        "smd: partial_attention_inversion",
        "task=note_type none: reading",
        "shaking: combined",
    ]
