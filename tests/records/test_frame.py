from collections.abc import Callable
from pathlib import Path

import pytest

from smd_research.core.cell import Cell
from smd_research.records import CorruptRecordWarning, Record, Status, Store, load
from smd_research.records.frame import COLUMNS


def test_one_row_a_cell_and_metric(
    tmp_path: Path, record_with: Callable[..., Record], cell_with: Callable[..., Cell]
) -> None:
    store = Store(tmp_path)
    store.write(record_with())
    store.write(record_with(cell_with(seed=1), accuracy=1.0))
    frame = load(tmp_path)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 4
    row = frame[(frame.metric == "token_accuracy") & (frame.seed == 1)].iloc[0]
    assert (row.defense, row.attack, row["mean"], row.n, row.status) == (
        "smd", "partial_attention_inversion", 1.0, 2, "ok",
    )  # fmt: skip
    assert row.attack_params == '{"steps": 32}'
    assert Path(row.path).is_dir()
    assert {type(path) for path in frame.path} == {str}, "a frame is written to CSV and Parquet as it is"


def test_cells_without_metrics_keep_their_reason(tmp_path: Path, record_with: Callable[..., Record]) -> None:
    Store(tmp_path).write(record_with(status=Status.NOT_APPLICABLE, reason="needs hidden states"))
    frame = load(tmp_path)
    assert len(frame) == 1
    assert (frame.status[0], frame.reason[0]) == ("n/a", "needs hidden states")
    assert frame[["metric", "mean"]].isna().all(axis=None)


def test_corrupt_records_are_left_out_by_name(
    tmp_path: Path, record_with: Callable[..., Record], cell_with: Callable[..., Cell]
) -> None:
    store = Store(tmp_path)
    store.write(record_with())
    bad = store.write(record_with(cell_with(seed=1))).path
    assert bad is not None
    (bad / "metrics.json").write_text("{")
    with pytest.warns(CorruptRecordWarning, match=bad.name):
        frame = load(tmp_path)
    assert set(frame.seed) == {0}


def test_no_records_is_an_empty_frame(tmp_path: Path) -> None:
    frame = load(tmp_path / "nothing")
    assert frame.empty
    assert list(frame.columns) == list(COLUMNS)
