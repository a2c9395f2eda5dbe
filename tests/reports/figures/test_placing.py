import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from smd_research.reports.figures.placing import place_ends, stacked
from smd_research.reports.figures.style import new_figure

FRAME = Bbox.from_extents(0, 0, 100, 300)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8).map(sorted))
def test_names_keep_their_order_and_stand_apart(heights: list[float]) -> None:
    found = stacked(heights, 20.0, FRAME)
    assert np.all(np.diff(found) >= 20.0 - 1e-6)
    assert found[0] >= 10 - 1e-6
    assert found[-1] <= 290 + 1e-6


def test_what_stands_apart_is_not_moved() -> None:
    assert stacked([50.0, 80.0, 200.0], 20.0, FRAME) == pytest.approx([50.0, 80.0, 200.0])
    assert stacked([100.0, 100.0], 20.0, FRAME) == pytest.approx([90.0, 110.0]), "each gives way half"


def test_curves_that_end_together_are_named_in_their_order() -> None:
    figure = new_figure(4, 3)
    axes = figure.add_subplot()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 1)
    figure.draw_without_rendering()
    ends = {"first": (5.0, 0.9), "second": (5.0, 0.9), "low": (5.0, 0.88), "lowest": (5.0, 0.1)}
    place_ends(axes, list(ends.values()), list(ends))
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert sorted(heights, key=heights.__getitem__, reverse=True) == list(ends)
