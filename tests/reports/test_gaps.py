"""Two sides of a table prompt by prompt: seeds are pooled, and a text that several drew counts once."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from made_records import make_cell

from smd_research.core.errors import ConfigError, RecordError
from smd_research.metrics import paired_mean, summarise
from smd_research.records import Item, Record, Status, Store, frame_of, items_frame
from smd_research.reports.claims import differs_by
from smd_research.reports.gaps import gaps
from smd_research.reports.points import Series, points
from smd_research.reports.tables.differences import differences
from smd_research.reports.verdicts import Judgement

METRIC = "token_accuracy"
PLAIN, BEAM = {"attack.mode": "bayes"}, {"attack.mode": "beam"}
SIDES = {"plain": PLAIN, "contextual": BEAM}


def record(
    mode: str,
    seed: int,
    scores: Sequence[float],
    words: Sequence[int] = (),
    mechanism: str = "santext",
    epsilon: float | None = None,
) -> Record:
    """A cell whose prompts score as given; prompt ``i`` is made of the word ``words[i]``, else of one of its own.

    An ``epsilon`` is what its deployment chose.
    """
    ids = [[words[i] if words else 100 * seed + i] for i in range(len(scores))]
    items = [
        Item(f"p{i}", {METRIC: score}, ["a"], ["b"], truth_ids=own, guess_ids=[0])
        for i, (score, own) in enumerate(zip(scores, ids, strict=True))
    ]
    defense = {"name": "dp_text", "mechanism": mechanism, "epsilon": None}
    chosen = {} if epsilon is None else {"parameters": {"epsilon": epsilon}}
    parts = {"defense": defense, "attack": {"name": "bayes_token", "mode": mode}}
    found = {METRIC: summarise(METRIC, list(scores))}
    return Record(
        Status.OK, make_cell(seed=seed, n_prompts=len(scores), **parts), "", found, items_frame(items), chosen
    )


def frame(tmp_path: Path, cells: Sequence[Record]) -> pd.DataFrame:
    store = Store(tmp_path)
    return frame_of([store.write(one) for one in cells])


def test_seeds_are_pooled(tmp_path: Path) -> None:
    plain, beam = ([0.2, 0.4], [0.1, 0.3]), ([0.5, 0.4], [0.4, 0.7])
    cells = [record(mode, seed, of[seed]) for mode, of in (("bayes", plain), ("beam", beam)) for seed in (0, 1)]
    (found,) = gaps(points(frame(tmp_path, cells)), Series(METRIC, BEAM), PLAIN)
    expected = paired_mean([0.3, 0.0, 0.3, 0.4], "rate")
    assert (found.paired.value, found.paired.low, found.paired.n) == pytest.approx((expected.value, expected.low, 4))
    assert set(found.ids) == {cell.cell.id for cell in cells}


def test_a_text_that_two_seeds_drew_is_one_value(tmp_path: Path) -> None:
    cells = [
        record(mode, seed, [one + 0.1 * seed], [7]) for mode, one in (("bayes", 0.2), ("beam", 0.5)) for seed in (0, 1)
    ]
    (found,) = gaps(points(frame(tmp_path, cells)), Series(METRIC, BEAM), PLAIN)
    assert (found.paired.value, found.paired.n) == (pytest.approx(0.3), 1)


def test_what_each_seed_chose_is_no_setting_of_its_own(tmp_path: Path) -> None:
    """An epsilon that is placed on public text is another for each draw of it."""
    cells = [
        record(mode, seed, [one], epsilon=10 + 0.01 * seed)
        for mode, one in (("bayes", 0.2), ("beam", 0.5))
        for seed in (0, 1)
    ]
    (found,) = gaps(points(frame(tmp_path, cells)), Series(METRIC, BEAM), PLAIN)
    assert found.paired.n == 2


def test_a_row_a_setting_and_a_claim_about_all(tmp_path: Path) -> None:
    cells = [
        record(mode, seed, scores, mechanism=mechanism)
        for mechanism, gain in (("santext", 0.5), ("custext", 0.0))
        for mode, scores in (("bayes", [0.1] * 20), ("beam", [0.1 + gain] * 20))
        for seed in (0, 1)
    ]
    made = frame(tmp_path, cells)
    table = differences(made, METRIC, {"defense.mechanism": None}, SIDES, [["contextual", "plain"]])
    assert [[entry.text for entry in row] for row in table.rows] == [
        ["santext", "10 %", "60 %", "+50.0 %"],
        ["custext", "10 %", "10 %", "+0.0 %"],
    ]
    assert table.rows[0][-1].low > 0.3
    assert differs_by(points(made), Series(METRIC, BEAM), PLAIN, low=0.01).verdict is Judgement.UNDECIDED
    assert differs_by(points(made), Series(METRIC, BEAM), PLAIN, low=-0.3).verdict is Judgement.HOLDS
    assert differs_by(points(made), Series(METRIC, BEAM), PLAIN, high=0.2).verdict is Judgement.DOES_NOT


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    made = frame(tmp_path, [record("bayes", 0, [0.1])])
    table = differences(made, METRIC, {"defense.mechanism": None}, SIDES, [["contextual", "plain"]])
    assert [entry.text for entry in table.rows[0][1:]] == ["10 %", "...", "..."]
    assert differs_by(points(made), Series(METRIC, BEAM), PLAIN).verdict is None
    other = frame(tmp_path / "other", [record("bayes", 0, [0.1], [5]), record("beam", 0, [0.1], [6])])
    with pytest.raises(RecordError, match="no prompts in common"):
        gaps(points(other), Series(METRIC, BEAM), PLAIN)
    with pytest.raises(ConfigError, match="is no share"):
        differences(made, "attack_s", {}, SIDES, [])
    with pytest.raises(ConfigError, match="no pair of sides"):
        differences(made, METRIC, {}, SIDES, [["contextual", "none"]])
