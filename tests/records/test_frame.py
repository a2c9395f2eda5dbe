from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from smd_research.core.cell import Cell
from smd_research.core.errors import RecordError
from smd_research.metrics import Estimate
from smd_research.records import CorruptRecordWarning, Record, Status, Store, frame_of, load, with_options
from smd_research.records.frame import COLUMNS


def test_one_row_a_cell_and_metric(
    tmp_path: Path, record_with: Callable[..., Record], cell_with: Callable[..., Cell]
) -> None:
    store = Store(tmp_path)
    store.write(record_with())
    store.write(record_with(cell_with(seed=1), accuracy=1.0))
    frame = load(tmp_path)
    assert list(frame.columns) == [*COLUMNS, "data.split", "attack.steps"]
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


def test_a_folder_without_records_is_an_error_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^\S*nothing holds no records: run experiments first, or choose another"):
        load(tmp_path / "nothing")


def test_no_records_are_an_empty_frame() -> None:
    frame = frame_of([])
    assert frame.empty
    assert list(frame.columns) == list(COLUMNS)
    assert list(with_options(frame).columns) == list(COLUMNS)


def test_what_a_cell_has_not_is_absent(record_with: Callable[..., Record]) -> None:
    (row,) = frame_of([Record(Status.OK, record_with().cell)]).to_dict("records")
    absent = {"task", "task_params", "tuning", "tuning_params", "defense_deployed", "reason", "command", "path"}
    assert {name for name, value in row.items() if pd.isna(value)} == {
        *absent, "metric", "unit", "direction", "mean", "low", "high", "held_out",
    }  # fmt: skip


def test_a_metric_is_read_as_its_card_says(tmp_path: Path, record_with: Callable[..., Record]) -> None:
    record = record_with()
    metrics = {**record.metrics, "greedy_equal": Estimate(1.0), "of_a_plugin": Estimate(1.0)}
    frame = frame_of([replace(record, metrics=metrics)]).set_index("metric")
    assert frame["unit"].fillna("").to_dict() == {
        "token_accuracy": "",
        "kl": "nats",
        "greedy_equal": "",
        "of_a_plugin": "",
    }
    assert frame["direction"].dropna().to_dict() == {"token_accuracy": "lower", "kl": "lower", "greedy_equal": "higher"}


def test_options_are_typed_columns(tmp_path: Path, cell_with: Callable[..., Cell]) -> None:
    defenses: list[dict[str, Any]] = [
        {"name": "dp_text", "epsilon": 8, "mechanism": "tem", "strict": True, "layers": [1, 2], "k": 3, "dial": False},
        {"name": "dp_text", "epsilon": 0.5, "mechanism": None, "strict": False, "k": 4, "dial": "auto", "inner": {}},
        {"name": "none"},
    ]  # fmt: skip
    records = [
        Record(Status.OK, cell_with(defense=one), metrics={"kl": Estimate(0), "rounds": Estimate(1)})
        for one in defenses
    ]
    frame = with_options(frame_of(records))
    found = {name: frame[f"defense.{name}"] for name in ("epsilon", "mechanism", "strict", "layers", "k", "dial")}
    assert [str(column.dtype) for column in found.values()] == [
        "Float64",
        "string",
        "boolean",
        "string",
        "Int64",
        "string",
    ]
    assert {name: [None if pd.isna(one) else one for one in column[::2]] for name, column in found.items()} == {
        "epsilon": [8, 0.5, None],
        "mechanism": ["tem", None, None],
        "strict": [True, False, None],
        "layers": ["1, 2", None, None],
        "k": [3, 4, None],
        "dial": ["false", "auto", None],
    }
    assert "defense.inner" not in frame, "what holds options itself stays in the JSON"
    assert list(frame[frame["defense.epsilon"] < 1]["defense"]) == ["dp_text"] * 2
    frame.to_parquet(tmp_path / "frame.parquet")
    pd.testing.assert_series_equal(pd.read_parquet(tmp_path / "frame.parquet")["defense.strict"], found["strict"])


def test_an_option_left_open_is_what_was_chosen(cell_with: Callable[..., Cell]) -> None:
    cell = cell_with(defense={"name": "dp_text", "survival": 0.5, "epsilon": None})
    found = [Record(Status.OK, cell, environment={"parameters": {"epsilon": 7.25}}), Record(Status.MISSING, cell)]
    assert with_options(frame_of(found))["defense.epsilon"].tolist() == [7.25, pd.NA]
