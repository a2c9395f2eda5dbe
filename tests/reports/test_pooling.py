"""Seeds pooled into one figure."""

import math
from typing import Any

import pytest

from smd_research.core.cell import Cell
from smd_research.metrics import Estimate
from smd_research.records import Record, Status, frame_of
from smd_research.reports.pooling import over_few, over_seeds, table
from smd_research.reports.samples import sample_of_frame
from smd_research.reports.tables.layout import Figures, layout


def record(seed: int, loss: float | None, tokens: int = 8) -> Record:
    cell = Cell({"name": "m"}, {"name": "d"}, {"name": "slip"}, {"name": "full", "tokens": tokens}, seed=seed)
    if loss is None:
        return Record(Status.FAILED, cell, "no room")
    return Record(Status.OK, cell, metrics={"restored_loss": Estimate(loss, loss - 1, loss + 1, 100)})


def test_cells_that_differ_in_their_seed_become_one_with_an_interval_over_seeds() -> None:
    pooled = over_seeds(frame_of([record(0, 2.0), record(1, 3.0), record(2, 4.0), record(0, 9.0, tokens=16)]))
    assert list(pooled["mean"]) == [3.0, 9.0]
    assert list(pooled["n"]) == [3, 1]
    assert pooled["low"][0] == pytest.approx(3 - 4.303 * 1 / 3**0.5, abs=1e-3)
    assert math.isnan(pooled["low"][1]), "one seed has no spread"


def test_a_failed_seed_is_left_out_of_the_mean_and_stays_in_the_frame() -> None:
    pooled = over_seeds(frame_of([record(0, 2.0), record(1, None), record(2, 4.0)]))
    assert list(pooled["status"]) == ["ok", "failed"]
    assert pooled["mean"][0] == 3.0


def test_a_pooled_table_has_a_row_where_a_table_of_seeds_would_refuse() -> None:
    frame = frame_of([record(0, 2.0), record(1, 3.0)])

    def view(source: object, title: str = "") -> object:
        return layout(source, {"attack": None}, [Figures("loss", "restored_loss")], title)  # type: ignore[arg-type]

    made = table(frame, view, "pooled")  # type: ignore[arg-type]
    assert [entry.text for entry in made.rows[0]] == ["full", "2.50"]


@pytest.mark.parametrize(
    ("means", "scale", "low", "high"),
    [
        ([0.93, 0.89, 0.98], "rate", 0.82, 1.0),
        ([0.0, 0.0, 0.0], "rate", 0.0, 0.06),
        ([1.0, 1.0, 1.0], "rate", 0.94, 1.0),
        ([2.0, 2.5, 3.0], "positive", 1.25, 3.75),
        ([0.1, 0.1, 2.0], "positive", 0.0, 3.5),
        ([2.0, 4.0, 8.0], "log", 0.715, 22.38),
    ],
)
def test_seeds_are_pooled_on_the_scale_of_the_metric(means: list[float], scale: Any, low: float, high: float) -> None:
    found = over_few(means, [20] * 3, scale)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.1))
    assert found.low <= found.mean <= found.high
    assert found.n == 3


def test_a_pooled_table_says_over_what_its_intervals_run() -> None:
    frame = frame_of([record(0, 2.0), record(1, 3.0)])

    def view(source: object, title: str = "") -> object:
        return layout(source, {"attack": None}, [Figures("loss", "restored_loss")], title)  # type: ignore[arg-type]

    assert "intervals over seeds" in table(frame, view, "pooled").sample  # type: ignore[arg-type]
    assert sample_of_frame(frame).endswith("95 % intervals over held-out documents")


def test_a_level_of_chance_has_no_interval() -> None:
    found = over_few([0.01] * 3, [1] * 3, "rate")
    assert found.mean == 0.01
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert over_few([0.0] * 3, [8] * 3, "rate").high > 0, "seeds that agree over samples may do so by accident"
