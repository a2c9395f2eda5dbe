from pathlib import Path

import pandas as pd
import pytest
from grid import BENCH_CASES
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from smd_research.core.cell import Cell
from smd_research.core.errors import RecordError
from smd_research.metrics import Estimate
from smd_research.records import Record, Status, frame_of
from smd_research.records.options import Label
from smd_research.reports.figures.breakdown import StackedBar, breakdown, breakdown_figure
from smd_research.reports.figures.decoys import judges_figure
from smd_research.reports.figures.lines import Axis, Curve, lines, lines_figure
from smd_research.reports.points import Point

MODES = {"none": 1.0, "smd": 1.4, "full": 3.0}
USERS = [
    Point({"model": model, "users": users, "mode": mode}, "value", slow * users, 0.9 * slow * users, 1.2 * slow * users)
    for model in ("small", "large")
    for users in (1, 2, 8)
    for mode, slow in MODES.items()
]
CURVES = [Curve(mode, "value", {"mode": mode}, quiet=mode == "none") for mode in MODES]
STAGES = {"q_ms": "Q proj", "mlp_ms": "MLP"}


def stage(quantity: str, value: float, mode: Label) -> Point:
    return Point({"model": "m", "mode": mode}, quantity, value)


STEPS = [stage("q_ms", 1, "none"), stage("mlp_ms", 3, "none"), stage("q_ms", 1, "smd"), stage("mlp_ms", 4, "smd")]
STEPS += [stage("link_cc_on_ms", 10, "smd")]
BARS = [
    StackedBar("No protection", "none"),
    StackedBar("SMD, CC on", "smd", "cc_on"),
    StackedBar("SMD", "smd"),
    StackedBar("later", "later"),
]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def test_each_value_of_a_label_has_a_panel_and_each_curve_its_name() -> None:
    figure = lines_figure(USERS, "users", CURVES, Axis("users", log=True), Axis("ms"), columns="model", reference=1)
    assert len(figure.axes) == 2
    for axes, model in zip(figure.axes, ("small", "large"), strict=True):
        assert axes.get_title(loc="left") == model
        assert {"none", "smd", "full"} <= {text.get_text() for text in axes.texts}
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "8"]
    curve = figure.axes[0].lines[0]
    assert list(curve.get_ydata()) == [1, 2, 8]


def test_labels_of_curves_stay_inside_the_figure() -> None:
    long = [Curve("a name of twenty-seven signs", "value", {"mode": mode}) for mode in MODES]
    figure = lines_figure(USERS, "users", long, Axis("users", log=True), Axis("ms"), columns="model")
    width = figure.get_window_extent().width
    for axes in figure.axes:
        assert all(text.get_window_extent().x1 <= width for text in axes.texts)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(RecordError, match="over users"):
        lines_figure([], "users", CURVES, Axis("users"), Axis("ms"))
    with pytest.raises(RecordError, match="no stage"):
        breakdown_figure(USERS, STAGES, BARS)


def bars(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_bars_are_stacked_beside_no_protection_and_the_link_is_called_modelled() -> None:
    figure = breakdown_figure(STEPS, STAGES, BARS)
    found = bars(figure)
    tops: dict[int, float] = {}
    for bar in found:
        place = round(bar.get_x() + bar.get_width() / 2)
        tops[place] = max(tops.get(place, 0.0), bar.get_y() + bar.get_height())
    assert tops[0] == pytest.approx(1)
    assert tops[1] == pytest.approx((5 + 10) / 4)
    assert tops[2] == pytest.approx(5 / 4)
    assert sum(bar.get_hatch() is not None for bar in found) == 1
    assert "link, modelled" in texts(figure)
    assert any(text.startswith("...") for text in texts(figure)), "a bar that is not measured yet says so"


JUDGED = {"po": {"fakes": 7}, "multiplexed": {"fakes": 7, "construction": "multiplexed"}}


def judged(*names: str) -> pd.DataFrame:
    """Cells of Prompt Obfuscation in which two lines of evidence picked streams."""
    shares = {"found_likelihood": 0.2, "found_consistency": 0.9, "max_posterior_likelihood": 0.3}
    shares |= {"stream_chance": 0.125, "nominal_bound": 0.225}
    metrics = {name: Estimate(share, share - 0.1, share + 0.1, 40) for name, share in shares.items()}
    cells = [Cell({"name": "m"}, {"name": "d"}, {"name": "po", **JUDGED[name]}) for name in names]
    return frame_of([Record(Status.OK, cell, metrics=metrics) for cell in cells])


def test_each_line_of_evidence_stands_beside_chance_and_the_claim() -> None:
    figure = judges_figure(judged("po"))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["likelihood", "consistency"]
    assert {"chance", "claimed bound", "largest posterior of this evidence"} <= set(texts(figure))
    one = {"defense.construction": "multiplexed"}
    assert judges_figure(judged("po", "multiplexed"), one)
    with pytest.raises(RecordError, match="several cells"):
        judges_figure(judged("po", "multiplexed"))
    with pytest.raises(RecordError, match="no stream was judged"):
        judges_figure(judged())


def test_both_are_written_as_pictures(tmp_path: Path) -> None:
    users, ms = Axis("users"), Axis("ms")
    curves = [Curve("SMD", "value", {"mode": "smd"})]
    with Image.open(lines(BENCH_CASES, tmp_path / "l.png", "users", curves, users, ms)) as picture:
        assert picture.width > 600
    lines(BENCH_CASES, tmp_path / "s.png", "users", [Curve("{} users", "value")], users, ms, by="mode")
    with pytest.raises(RecordError):
        breakdown(BENCH_CASES, tmp_path / "b.png", STAGES, [StackedBar("a", "smd")])


def test_ticks_that_would_run_into_each_other_are_left_out() -> None:
    from smd_research.reports.figures.lines import _apart

    assert _apart([0, 0.05, 0.1, 0.5, 1, 3], log=False) == [0, 0.5, 1, 3]
    assert _apart([1, 10, 11, 100], log=True) == [1, 10, 100]
    assert _apart([7], log=False) == [7]
