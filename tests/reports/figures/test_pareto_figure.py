"""What is kept against what is found: which settings no other beats, and how they are shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_research.core.errors import RecordError
from smd_research.records.options import Label
from smd_research.reports.figures.pareto import Group, pareto_figure
from smd_research.reports.figures.style import save
from smd_research.reports.points import Point
from smd_research.reports.tradeoffs import Setting, paired, undominated

NAMES = {"defense.gaussian": "noise", "defense.tilt": "tilt"}
GROUPS = [Group("noise", {"defense.tilt": 0}), Group("all the rest")]


def setting(leak: float, utility: float, number: int = 0, **options: float) -> Setting:
    labels: dict[str, Label] = {"defense": "shaking", "defense.gaussian": 0, "defense.tilt": 0}
    labels |= {f"defense.{name}": value for name, value in options.items()}
    made = (
        Point(labels, quantity, value, value - 0.02, value + 0.02, 5, id=f"cell{number}")
        for quantity, value in (("token_recovery", leak), ("accuracy", utility))
    )
    return Setting(*made)


def test_of_several_attacks_on_a_setting_the_one_that_finds_most_counts() -> None:
    weak, strong, other = setting(0.2, 0.9, 1, gaussian=1), setting(0.6, 0.9, 2, gaussian=1), setting(0.1, 0.8, 3)
    found = [
        replace(point, labels={**point.labels, "attack": "combined", "attack.auxiliary": corpus})
        for one, corpus in ((weak, "same"), (strong, "reference"), (other, "same"))
        for point in (one.leak, one.utility)
    ]
    assert sorted(one.leak.value for one in paired(found, "token_recovery", "accuracy")) == [0.1, 0.6]


def figures(settings: list[Setting]) -> list[Point]:
    plain = Point({"defense": "none"}, "accuracy", 0.96, id="plain")
    return [plain, *(point for one in settings for point in (one.leak, one.utility))]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_frontier_beats_every_other_setting_and_no_one_on_it(places: list[tuple[int, int]]) -> None:
    settings = [setting(leak / 9, utility / 9) for leak, utility in places]
    best = {one.place for one in undominated(settings)}

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    for one in settings:
        assert (one.place in best) != any(beats(other.place, one.place) for other in settings)


def test_the_frontier_is_joined_and_named_and_the_unprotected_line_drawn(tmp_path: Path) -> None:
    settings = [setting(1, 0.95, 0), setting(0.5, 0.9, 1, gaussian=2), setting(0.6, 0.8, 2, tilt=3.5)]
    figure = pareto_figure(figures(settings), "token_recovery", "accuracy", GROUPS, NAMES, {"defense": "none"}, "T")
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"none", "noise 2"}
    assert axes.get_title(loc="left") == "T"
    dashed = [np.asarray(line.get_ydata()).tolist() for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [[0.96, 0.96]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["noise", "all the rest", "unprotected"]
    assert save(figure, tmp_path / "pareto.png").stat().st_size > 10_000


def test_a_cell_without_an_attack_is_no_setting() -> None:
    found = figures([setting(1, 0.95)])
    assert len(paired(found, "token_recovery", "accuracy")) == 1
    with pytest.raises(RecordError, match="run the attacks"):
        pareto_figure(found[:1], "token_recovery", "accuracy", GROUPS, NAMES, {"defense": "none"})
