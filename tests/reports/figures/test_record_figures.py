from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grid import records
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from smd_research.core.errors import RecordError
from smd_research.records import frame_of
from smd_research.reports.figures.epsilon import epsilon_figure, epsilon_sweep
from smd_research.reports.figures.frontier import frontier, frontier_figure, frontier_points
from smd_research.reports.figures.placing import _overlaps, place_labels
from smd_research.reports.figures.style import house_style, new_figure


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(records())


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()}


def label_boxes(figure: Figure, wanted: set[str]) -> list[Bbox]:
    figure.draw_without_rendering()
    found = [text for text in figure.axes[0].texts if text.get_text() in wanted]
    return [text.get_window_extent() for text in found]


def test_the_frontier_names_every_tested_defense_and_its_attack(frame: pd.DataFrame) -> None:
    shown = texts(frontier_figure(frame))
    assert {"smd", "split layer=1", "split layer=4", "dp_text epsilon[metric]=8"} <= shown
    assert {"partial_attention_", "inversion", "vocab_matching", "bayes_token"} <= shown
    assert "none" not in shown  # only baselines met it: its privacy is untested


def test_frontier_points_are_the_best_attacks(frame: pd.DataFrame) -> None:
    points = {point.label: point for point in frontier_points(frame, "token_accuracy", "tpot_ms", "kl")}
    assert points["smd"].leak.attack == "partial_attention_inversion"
    assert points["smd"].latency == pytest.approx(6.3, rel=0.1)
    assert points["dp_text epsilon[metric]=4"].loss == pytest.approx(3.1, rel=0.1)


def test_names_on_the_frontier_do_not_overlap(frame: pd.DataFrame) -> None:
    wanted = {point.label for point in frontier_points(frame, "span_exact", "tpot_ms", "kl")}
    boxes = label_boxes(frontier_figure(frame), wanted)
    assert len(boxes) == len(wanted)
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_labels_of_one_spot_are_parted() -> None:
    with house_style():
        figure = new_figure(6, 4)
        axes = figure.add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.draw_without_rendering()
        place_labels(axes, [(0.5, 0.5)] * 6, [f"a defense {i}\nan attack" for i in range(6)])
        boxes = label_boxes(figure, {f"a defense {i}" for i in range(6)})
        inside = axes.get_window_extent()
    assert len(boxes) == 6
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])
        assert inside.x0 <= one.x0
        assert one.x1 <= inside.x1


def test_a_label_stands_nearest_to_its_own_point_where_it_can() -> None:
    with house_style():
        figure = new_figure(6, 4)
        axes = figure.add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.draw_without_rendering()
        place_labels(axes, [(0.48, 0.5), (0.52, 0.5)], ["left one", "right one"])
        left, right = (label_boxes(figure, {name})[0] for name in ("left one", "right one"))
    assert left.x1 < right.x0 or abs(left.y0 - right.y0) > 10


def test_a_frame_without_attacks_has_no_frontier() -> None:
    with pytest.raises(RecordError, match="run attacks"):
        frontier_figure(frame_of([]))


def test_latencies_far_apart_get_a_log_axis(frame: pd.DataFrame) -> None:
    slow = frame.copy()
    slow.loc[(slow.defense == "smd") & (slow.metric == "tpot_ms"), ["mean", "low", "high"]] *= 100
    assert frontier_figure(slow).axes[0].get_xscale() == "log"
    assert frontier_figure(frame).axes[0].get_xscale() == "linear"


def test_epsilon_figure_has_a_curve_an_attack(frame: pd.DataFrame) -> None:
    figure = epsilon_figure(frame, "dp_text")
    left, right = figure.axes
    assert {"bayes_token", "nearest_token", "prior", "random"} <= texts(figure)
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["4", "8", "12", "16"]
    assert right.get_yscale() == "log"
    with pytest.raises(RecordError, match="fewer than two epsilons"):
        epsilon_figure(frame, "smd")


def test_mechanisms_are_drawn_apart() -> None:
    found = []
    for record in records():
        options = record.cell.defense
        if options["name"] == "dp_text":
            for mechanism, factor in (("santext", 1.0), ("dchi", 7.0)):
                changed = {**options, "mechanism": mechanism, "epsilon": options["epsilon"] * factor, "survival": 0.1}
                found.append(replace(record, cell=replace(record.cell, defense=changed)))
    figure = epsilon_figure(frame_of(found), "dp_text")
    assert len(figure.axes) == 4
    ticks = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes]
    assert ["4", "8", "12", "16"] in ticks
    assert ["28", "56", "84", "112"] in ticks


def test_figures_are_written_as_pictures(frame: pd.DataFrame, tmp_path: Path) -> None:
    paths = [
        frontier(frame, tmp_path / "new" / "frontier.png"),
        epsilon_sweep(frame, tmp_path / "epsilon.png", "dp_text"),
    ]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width > 1000


def test_areas_of_labels_are_those_of_matplotlibs_boxes() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 8, (40, 2, 2)).astype(float)
    boxes = np.hstack([corners.min(axis=1), corners.max(axis=1) + 1])
    found = _overlaps(boxes[:20], boxes[20:])
    for one, row in zip(boxes[:20], found, strict=True):
        for other, area in zip(boxes[20:], row, strict=True):
            shared = Bbox.intersection(Bbox.from_extents(*one), Bbox.from_extents(*other))
            assert area == (shared.width * shared.height if shared else 0.0)
    assert found.any()
    assert not found.all()
