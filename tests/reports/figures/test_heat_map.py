"""A heat map has a field for every pair of values, in the order of numbers, and says what it has no figure for."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from smd_research.core.errors import RecordError
from smd_research.records.record import Status
from smd_research.reports.figures.heat_map import Side, heat_map_figure
from smd_research.reports.figures.style import save
from smd_research.reports.points import Point

NOISE = Side("defense.epsilon", "epsilon", "no noise")
LAYER = Side("defense.layer", "layer")


def point(layer: int, epsilon: float | None, share: float, attack: str = "matching") -> Point:
    labels: dict[str, str | int | float | None] = {"defense": "dp_hidden", "defense.layer": layer, "attack": attack}
    if epsilon is not None:
        labels["defense.epsilon"] = epsilon
    return Point(labels, "token_accuracy", share)


FOUND = [point(10, 8.0, 0.02), point(2, 8.0, 0.25), point(2, 1e6, 0.99), point(2, None, 1.0), point(10, None, 1.0)]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if isinstance(text, Text)]


def ticks(figure: Figure) -> tuple[list[str], list[str]]:
    (axes, *_) = figure.axes
    across, down = axes.get_xticklabels(), axes.get_yticklabels()
    return [one.get_text() for one in across], [one.get_text() for one in down]


def test_fields_stand_in_order_with_their_shares() -> None:
    figure = heat_map_figure(FOUND, NOISE, LAYER)
    assert ticks(figure) == (["8", "1,000,000", "no noise"], ["2", "10"])
    assert texts(figure) == ["25 %", "99 %", "100 %", "2 %", "...", "100 %"]
    assert figure.axes[0].get_xlabel() == "epsilon, (epsilon, delta) per message"


def test_an_attack_that_does_not_apply_has_a_dash() -> None:
    gone = Point(FOUND[0].labels | {"defense.epsilon": 1e6}, status=Status.NOT_APPLICABLE)
    assert texts(heat_map_figure([*FOUND, gone], NOISE, LAYER))[4] == "–"


def test_a_map_for_each_attack_and_none_without_cells() -> None:
    figure = heat_map_figure([*FOUND, point(2, 8.0, 0.1, "nearest")], NOISE, LAYER, columns="attack")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["matching", "nearest"]
    by_layer = heat_map_figure(
        [*FOUND, point(2, 8.0, 0.1, "nearest")], NOISE, LAYER, "token_accuracy", "defense.layer", "attack"
    )
    assert [axes.axison for axes in by_layer.axes] == [True, True, True, False]


def test_two_figures_in_one_field_are_refused_and_so_is_none() -> None:
    with pytest.raises(RecordError, match="2 figures belong in the field"):
        heat_map_figure([*FOUND, FOUND[0]], NOISE, LAYER)
    with pytest.raises(RecordError, match="no span_exact over"):
        heat_map_figure(FOUND, NOISE, LAYER, "span_exact")


def test_it_is_drawn(tmp_path: Path) -> None:
    path = save(heat_map_figure(FOUND, NOISE, LAYER, title="Recovered"), tmp_path / "map.png")
    assert Image.open(path).size[0] > 400
