"""Utility at matched attack success: read between settings, never beyond them."""

from pathlib import Path

import pytest
from grid import records
from hypothesis import given
from hypothesis import strategies as st

from experiments.composing.words import resolve_figure, resolve_view
from smd_research.core.errors import ConfigError, RecordError
from smd_research.records import frame_of, frame_of_sweep
from smd_research.records.options import Label
from smd_research.reports.figures.curves import curves_figure
from smd_research.reports.points import Point
from smd_research.reports.render.text import markdown
from smd_research.reports.tables.matched import matched
from smd_research.reports.tradeoffs import Setting, undominated, utility_at

AT = [0.1, 0.25, 0.5, 0.75]
FAMILIES = {"defense": None}
SHARES = st.integers(0, 12).map(lambda twelfths: twelfths / 12)
PLACES = st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=9)


def setting(leak: float, utility: float, quantity: str = "accuracy", half: float = 0.02) -> Setting:
    labels: dict[str, Label] = {"defense": "shaking", "defense.gaussian": leak, "attack": "combined"}
    return Setting(
        Point(labels, "token_recovery", leak, leak, leak, 5, id=f"{leak}"),
        Point(labels, quantity, utility, utility - half, utility + half, 5, id=f"{leak}"),
    )


def test_between_two_settings_it_is_read_off_the_line_that_joins_them() -> None:
    found = utility_at([setting(0.6, 0.9, half=0.06), setting(0.2, 0.7)], 0.3)
    assert found is not None
    assert found.utility.value == pytest.approx(0.75)
    assert (found.utility.low, found.utility.high) == pytest.approx((0.75 - 0.03, 0.75 + 0.03))
    assert found.ids == ("0.2", "0.6")
    assert not found.bound


def test_beyond_what_was_measured_there_is_no_figure_or_a_bound() -> None:
    settings = [setting(0.2, 0.7), setting(0.6, 0.9)]
    assert utility_at(settings, 0.1) is None
    most = utility_at(settings, 0.8)
    assert most is not None
    assert (most.utility.value, most.bound) == (0.9, True)
    level = utility_at([*settings, setting(0.9, 0.5)], 0.8)
    assert level is not None
    assert (level.utility.value, level.bound) == (0.9, False), "a setting that leaks more and keeps less costs nothing"


def test_where_less_is_better_the_least_counts() -> None:
    settings = [setting(0.2, 3.0, "kl"), setting(0.4, 5.0, "kl"), setting(0.6, 1.0, "kl")]
    assert [one.leak.value for one in undominated(settings)] == [0.2, 0.6]
    found = utility_at(settings, 0.4)
    assert found is not None
    assert found.utility.value == pytest.approx(2.0)


@given(PLACES, SHARES, SHARES)
def test_more_leak_never_keeps_less_and_every_setting_is_reached(
    places: list[tuple[float, float]], one: float, other: float
) -> None:
    settings = [setting(*place) for place in places]
    low, high = (utility_at(settings, level) for level in sorted((one, other)))
    if low is not None:
        assert high is not None
        assert high.utility.value >= low.utility.value - 1e-12
    for leak, utility in places:
        at = utility_at(settings, leak)
        assert at is not None
        assert utility - 1e-12 <= at.utility.value <= max(kept for _, kept in places) + 1e-12


def test_a_family_has_a_row_and_a_level_a_column() -> None:
    table = matched(frame_of(records()), "token_accuracy", "kl", AT, FAMILIES, show="number")
    rows = {row[0].text: row[1:] for row in table.rows}
    titles = [column.title for column in table.columns]
    assert titles == ["defense", "settings", "leak", "at 10 %", "at 25 %", "at 50 %", "at 75 %"]
    assert rows["dp_text"][0].text == "4"
    assert rows["dp_text"][2].text == "–"
    assert "every setting leaks more" in rows["dp_text"][2].note
    between = rows["dp_text"][4]
    assert 0.5 < between.value < 1.6, "between epsilon 8 (nearest 0.4) and 12 (0.74)"
    assert between.low < between.value < between.high
    assert len(between.ids) == 2
    assert {one.text for one in rows["smd"][2:]} == {"–"}
    assert {one.note for one in rows["none"][2:]} == {"untested: no attack here reads it"}
    assert any("–: every setting leaks more" in note for note in table.notes)


def test_a_family_that_leaks_less_than_asked_keeps_at_least_what_it_keeps() -> None:
    hidden = [record for record in records() if record.cell.defense.get("epsilon") == 4.0]
    table = matched(frame_of(hidden), "token_accuracy", "kl", [0.75], FAMILIES, show="number")
    assert table.rows[0][-1].text.startswith("≤ ")
    assert any(note.startswith("≤: no setting leaks as much") for note in table.notes)
    assert "≤" in markdown(table)


def test_what_has_not_run_or_failed_is_said() -> None:
    found = records()
    cells = [record.cell for record in found]
    table = matched(frame_of_sweep(cells, found[:-3]), "token_accuracy", "kl", AT, FAMILIES)
    assert any("have not run" in note for note in table.notes)
    nothing = matched(frame_of_sweep(cells, []), "token_accuracy", "kl", AT, FAMILIES)
    assert {entry.text for row in nothing.rows for entry in row[3:]} == {"..."}


@pytest.mark.parametrize("at", [[], [-0.1], [1.5], ["half"]])
def test_a_level_is_a_share(at: list[float]) -> None:
    with pytest.raises(ConfigError, match="view matched: at="):
        matched(frame_of(records()), "token_accuracy", "kl", at, FAMILIES)


def test_both_are_words_of_a_declared_table(tmp_path: Path) -> None:
    said = {"leak": "token_accuracy", "utility": "kl", "series": {"defense": None}}
    frame = frame_of(records())
    table = resolve_view({"matched": {**said, "at": AT, "show": "number"}})(frame, title="At matched leak")
    assert table.title == "At matched leak"
    assert resolve_figure({"curves": said})(frame, tmp_path / "curves.png").stat().st_size > 5000
    with pytest.raises(ConfigError, match="unknown option 'levels'"):
        resolve_view({"matched": {**said, "levels": AT}})


def test_a_curve_joins_what_no_setting_of_its_family_beats() -> None:
    settings = [setting(0.2, 0.7), setting(0.4, 0.6), setting(0.6, 0.9)]
    found = [point for one in settings for point in (one.leak, one.utility)]
    figure = curves_figure(found, "token_recovery", "accuracy", FAMILIES, "T", plain=[setting(0, 0.95).utility])
    joined = figure.axes[0].lines[0]
    assert list(joined.get_xdata()) == [0.2, 0.6]
    assert "unprotected" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    with pytest.raises(RecordError, match="run the attacks first"):
        curves_figure([], "token_recovery", "accuracy", FAMILIES)
