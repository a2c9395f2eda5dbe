"""A row for each setting: what it leaks, what it costs, and that it is untested where no attack reads it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grid import records
from matplotlib.figure import Figure
from matplotlib.text import Text

from smd_research.core.errors import RecordError
from smd_research.records import frame_of
from smd_research.reports.batteries import batteries
from smd_research.reports.figures.trade import trade, trade_figure


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(records())


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_each_setting_has_a_row_with_its_leak_utility_and_time(frame: pd.DataFrame) -> None:
    figure = trade_figure(frame, unsaid=["layer=1"])
    found = batteries(frame)
    assert len(names(figure)) == len(found)
    assert {"smd", "split", "split layer 4", "dp text epsilon[metric] 8"} <= set(names(figure))
    for axes, metric in zip(figure.axes[1:], ("kl", "tpot_ms"), strict=True):
        drawn = np.asarray(axes.lines[-1].get_xdata(), dtype=float)
        expected = [battery.common(metric) for battery in found]
        assert drawn.tolist() == [max(score.value, 1e-6) if score else math.nan for score in expected]


def test_of_one_defense_the_rows_bear_its_options_alone(frame: pd.DataFrame) -> None:
    figure = trade_figure(frame[frame["defense"] == "split"], unsaid=["layer=1"])
    assert {"split as it is", "layer 4"} <= set(names(figure))


def test_the_best_attack_is_named_and_a_defense_nobody_reads_is_untested(frame: pd.DataFrame) -> None:
    figure = trade_figure(frame, title="Settings", note="a lower bound")
    assert {"Settings", "a lower bound"} <= {text.get_text() for text in figure.texts}
    remarks = {text.get_position()[1]: text.get_text() for text in figure.axes[0].texts}
    told = dict(zip([battery.label for battery in batteries(frame)], remarks.values(), strict=True))
    assert told["smd"] == "partial attention inversion"
    assert told["none"].startswith("untested"), "only baselines met it"


def test_labels_stay_apart_and_inside(frame: pd.DataFrame) -> None:
    figure = trade_figure(frame)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(not one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert max(box.x1 for box in boxes) <= figure.axes[1].get_window_extent().x0
    assert all(text.get_window_extent().x0 >= 0 for text in figure.findobj(Text) if text.get_text())


def test_it_is_written_as_a_picture(frame: pd.DataFrame, tmp_path: Path) -> None:
    assert trade(frame, tmp_path / "trade.png").stat().st_size > 10_000


def test_without_attacks_there_is_no_figure(frame: pd.DataFrame) -> None:
    with pytest.raises(RecordError, match="run attacks"):
        trade_figure(frame[frame["attack"].isin(["random", "prior"])])
