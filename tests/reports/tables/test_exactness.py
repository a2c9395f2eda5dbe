"""The exactness table reports the worst token, not a mean."""

from pathlib import Path

from smd_research.core.cell import Cell
from smd_research.records import Item, Record, Status, Store, frame_of_sweep, items_frame, load
from smd_research.reports.tables.exactness import exactness


def _record(family: str, errors: list[float], status: Status = Status.OK) -> Record:
    cell = Cell(
        model={"name": f"random-{family}"},
        data={"name": "synthetic"},
        defense={"name": "smd"},
        attack={"name": "none"},
        link={"name": "none"},
        n_prompts=len(errors),
        max_new_tokens=4,
        prompt_tokens=8,
        seed=0,
    )
    items = [
        Item(str(i), {"logit_error": error, "kl": error**2, "greedy_equal": 1.0, "scored_tokens": 4.0 + i})
        for i, error in enumerate(errors)
    ]
    return Record(status, cell, "", items=items_frame(items))


def test_the_largest_error_over_all_tokens_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(_record("llama", [1e-7, 3e-7, 2e-7]))
    store.write(_record("opt", [5e-7]))
    table = exactness(load(tmp_path))
    shown = {row[0].text: [entry.text for entry in row[4:]] for row in table.rows}
    assert shown["random-llama"][:3] == ["3", "15", "3.0e-07"]
    assert shown["random-opt"][2] == "5.0e-07"
    assert all(row[6].ids for row in table.rows)


def test_failed_cells_give_no_row(tmp_path: Path) -> None:
    Store(tmp_path).write(_record("llama", [1e-7], Status.FAILED))
    frame = load(tmp_path)
    assert len(frame) > 0
    assert exactness(frame).rows == ()


def test_cells_that_have_not_run_wait() -> None:
    (row,) = exactness(frame_of_sweep([_record("llama", [1e-7]).cell], [])).rows
    assert [entry.text for entry in row] == ["random-llama", "smd", "inproc", "fp32", *["..."] * 5]
