"""``smd compare``: two sides in words, flipped prompts first, and one line for what cannot be compared."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_records import make_cell

from experiments.commands.cli import main as smd
from experiments.commands.compare import parted, side
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import summarise
from smd_research.records import Item, Record, Status, Store, items_frame, pack
from smd_research.records.record import without_texts

HOSTILE = "[bold red]Ann[/]"


def record(defense: Mapping[str, Any], hits: str, attack: str = "prior") -> Record:
    """A cell of whose prompts the secret is found (``x``) or not."""
    items = []
    for i, hit in enumerate(hits):
        guess, found = ([f"Ms{i}", f" {HOSTILE}"], [i, 5]) if hit == "x" else ([f"Ms{i}", " Bob"], [i, 6])
        texts = [f"Ms{i}", f" {HOSTILE}"], guess, [TokenSpan(1, 2, "name")], [i, 5], found
        items.append(Item(f"letter-{i}", {"span_exact": float(hit == "x")}, *texts))
    metrics = {"span_exact": summarise("span_exact", [item.metrics["span_exact"] for item in items])}
    cell = make_cell(defense=defense, attack={"name": attack})
    return Record(Status.OK, cell, "", metrics, items_frame(items), {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two defenses under two attacks, with equal means and opposite flips under the first."""
    store = Store(tmp_path / "results")
    for defense, hits in (("smd", "xx..x"), ("split", "..xxx")):
        store.write(record({"name": defense}, hits))
        store.write(record({"name": defense}, "xxxxx", "reading"))
    store.write(record({"name": "dp_text", "epsilon": 2}, "....."))
    store.write(record({"name": "dp_text", "epsilon": 8}, "xxxxx"))
    store.write(replace(record({"name": "po"}, ""), status=Status.NOT_APPLICABLE, reason="needs what is not shown"))
    return store


def said(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert smd(["compare", *words, f"results_dir={store.results_dir}"]) == 0
    return capsys.readouterr().out


def test_flipped_prompts_are_named_first_and_equal_ones_counted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(store, capsys, "defense=smd,attack=prior", "defense=split,attack=prior", "prompts=3")
    lines = out.splitlines()
    assert lines.index("letter-0  A to B: 100 % to 0 %") < lines.index("letter-2  A to B: 0 % to 100 %")
    assert "1 more that differ" in lines
    assert "1 of 5 prompts are equal on both sides, at 100 % in the mean." in lines
    assert f"     Ms0 {HOSTILE}" in out, "a hostile prompt stays text"
    assert f"  A  Ms0 {HOSTILE}" in out
    assert "  B  Ms0 Bob" in out
    (row,) = [line for line in lines if line.strip().startswith("secrets")]
    assert " ".join(row.split()[1:]) == "60 % 60 % 0 % -77 % to 77 % 1.00 1.00 undecided 4 5"


def test_several_attacks_are_a_row_each(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(store, capsys, "defense=smd", "defense=split,defense=[red]")
    assert "A: defense=smd, B: defense=split,defense=[red]" in out
    assert "attack=prior" in out
    assert "In 1 of 2 pairs of cells no prompt differs." in out
    assert [line.split()[0] for line in out.splitlines() if "  secrets  " in line] == ["prior", "reading"]


def test_options_part_cells_and_the_direction_is_the_cards(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(store, capsys, "defense.epsilon=2", "defense.epsilon=8", "metric=span_exact")
    assert "A: dp_text epsilon[metric]=2  B: dp_text epsilon[metric]=8  5 of 5 prompts differ" in out
    assert "-100 %" in out
    assert "Better is lower: secrets recovered." in out
    assert "0.0625" in out, "McNemar's exact test of five flips"
    assert "No prompt is equal on both sides." in out


def test_cells_by_name_and_without_texts(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = store.write(without_texts(record({"name": "smd"}, "xx..x")))
    out = said(store, capsys, one.cell.id, "split-prior")
    assert "texts were not recorded" in out
    assert "letter-0  A to B: 100 % to 0 %" in out
    assert "Ann" not in out


def test_two_folders_hold_the_same_cells(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = pack(store.paths(), tmp_path / "before.parquet")
    store.write(record({"name": "smd"}, "x...x"))
    assert smd(["compare", str(store.results_dir), str(packed)]) == 0
    out = capsys.readouterr().out
    assert "1 of 5 prompts differ" in out
    assert "letter-1  A to B: 0 % to 100 %" in out
    assert "In 5 of 6 pairs of cells no prompt differs." in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "two sides are needed, not 0 (none): smd compare A B"),
        (["defense=smd"], "two sides are needed, not 1 (defense=smd)"),
        (["defense=smd", "defense=split", "metrics=kl"], "two sides are needed, not 3"),
        (["defense=smd,", "defense=split"], "'' in 'defense=smd,' is no label: write NAME=VALUE, joined by commas"),
        (["defense=smd", "defense=none"], "no cell defense=none: defense is dp_text, po, smd, split"),
        (["defense=dp_text", "defense=smd"], "is 2 cells where one is needed: add one of defense.epsilon=2, 8"),
        (["smd-", "split-prior"], "smd- is 2 cells where one is needed: add one of attack=prior, reading"),
        (["defense=smd", "defense=smd"], "defense=smd and defense=smd are the same: there is nothing to compare"),
        (["defense=po", "defense=smd"], "defense=po is n/a (needs what is not shown): there is nothing to compare"),
        (["defense=smd", "attack=prior"], "defense=smd is 2 cells where one is needed: add one of attack=prior"),
        (["defense=smd", "defense=split", "metric=kl"], "has no kl prompt by prompt; there is span_exact"),
        (["defense=smd", "defense=split", "metric=nothing"], "nothing is no metric with a card"),
        (["defense=smd", "defense=split", "prompts=0"], "prompts=0: give a whole number, 1 or more"),
        (["..", ".."], ".. and .. are the same: there is nothing to compare"),
        (["nowhere", "."], "nowhere and .: one is a folder, the other is not"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(
    words: list[str], line: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(["compare", *words, f"results_dir={store.results_dir}"]) == 2
    shown = capsys.readouterr()
    assert line in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


def test_a_folder_without_records_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["compare", "defense=smd", "defense=none", f"results_dir={tmp_path}"]) == 2
    assert "holds no records: run experiments first" in capsys.readouterr().err


def test_sides_are_what_is_no_value_of_the_command() -> None:
    words = ["a", "results_dir=x", "-cd", "mine", "defense=smd", "hydra.verbose=true", "metric=[kl,rounds]"]
    assert parted(words) == (["a", "defense=smd"], [word for word in words if word not in ("a", "defense=smd")])
    assert side("defense.epsilon=0.5,seed=0,seed=1,link=none,data.chat=true") == {
        "defense.epsilon": 0.5, "seed": [0, 1], "link": "none", "data.chat": True,
    }  # fmt: skip
