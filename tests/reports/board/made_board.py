"""A board of the synthetic grid, with prompts that mean harm, for tests of its documents and in a browser."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from grid import records
from made_records import make_cell, make_record

from smd_research.core.cell import Cell
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import CARDS, Estimate
from smd_research.records import Item, Record, Status, frame_of, items_frame
from smd_research.reports.board import BoardTable, Sourced
from smd_research.reports.tables.summary import summary
from smd_research.reports.tables.table import Column, Table, TableEntry

HOSTILE = "</script><img src=x onerror=\"document.title='harmed'\">\u2028'"
CELL = make_cell(attack={"name": "reading"}, defense={"name": "none", "note": HOSTILE})


def hostile_record() -> Record:
    """A record whose prompt, secret, guess, option, reason and command are markup."""
    item = Item(
        HOSTILE, {"token_accuracy": 0.5}, ["<b>", HOSTILE], ["<b>", f"no{HOSTILE}"], [TokenSpan(1, 2, HOSTILE)],
        source=HOSTILE,
    )  # fmt: skip
    cell = Cell.from_dict({**CELL.to_dict(), "command": f"smd run {HOSTILE} results_dir=/home/somebody/x"})
    environment = {"python": HOSTILE, "guarantee": HOSTILE, "wall_s": {"attack": 1.5}}
    return Record(Status.OK, cell, "", {"token_accuracy": Estimate(0.5, 0.1, 0.9, 1)}, items_frame([item]), environment)


def all_records() -> list[Record]:
    """The grid, a hostile record, one that failed, and one without texts."""
    failed = make_record(make_cell(seed=7), status=Status.FAILED, reason=f"no luck {HOSTILE}")
    bare = make_record(make_cell(seed=8))
    items = [Item("p0", {"token_accuracy": 0.5}, ["a", "b"], ["a", "c"], [TokenSpan(0, 1, "name")])]
    bare = replace(bare, items=items_frame(items, texts=False), texts=False)
    return [*records(), hostile_record(), failed, bare]


def all_tables(found: list[Record]) -> list[BoardTable]:
    """The summary, with a claim of each verdict beside it."""
    columns = tuple(Column(name, align="left") for name in ("claim", "verdict"))
    rows = tuple((TableEntry(HOSTILE), TableEntry(verdict)) for verdict in ("holds", "does not", "undecided"))
    return [BoardTable("summary", summary(frame_of(found), f"Summary {HOSTILE}"), Table("Claims", columns, rows))]


def sourced_of(found: list[Record]) -> list[Sourced]:
    """Records as if they came from one place."""
    return [Sourced(one, (f"cells/{one.cell.readable}-{one.cell.id}",)) for one in found]


def many(count: int) -> list[Record]:
    """So many cells with the metrics of a real one and no prompts: for the time that a filter takes."""
    shares = [name for name, card in CARDS.items() if card.ceiling == 1.0 and name != "greedy_equal"]
    made = []
    for i in range(count):
        cell = make_cell(
            seed=i, defense={"name": f"defense_{i % 17}", "epsilon": i % 5}, attack={"name": f"attack_{i % 19}"},
            model={"name": ("embedded", "smollm2", "other")[i % 3]},
        )  # fmt: skip
        names = [*shares[:20], "tpot_ms", "kl", "greedy_equal"]
        metrics = {name: Estimate((i * 7919 % 1000) / 1000 + 1e-4, 0.0, 1.0, 20) for name in names}
        made.append(Record(Status.OK, cell, "", metrics))
    return made


def document(folder: Path, file: str) -> Any:
    """The value that a script of a board hands to the page."""
    text = (folder / "data" / file).read_text(encoding="utf-8")
    assert text.startswith("board.receive(")
    return json.loads(f"[{text.removeprefix('board.receive(').removesuffix(');' + chr(10))}]")[2]
