"""Two cells over the same prompts: flipped prompts are named, neither side is favoured, what is no pair is counted."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import make_cell
from scipy import stats

from smd_research import reports
from smd_research.core.errors import RecordError
from smd_research.metrics import summarise
from smd_research.records import Item, Record, Status, Store, frame_of, items_frame, load, pack, records_in
from smd_research.records.record import without_texts
from smd_research.reports.claims import better
from smd_research.reports.comparing import meet
from smd_research.reports.points import Series, points
from smd_research.reports.sides import Cells, matching
from smd_research.reports.verdicts import Judgement

SMD, SPLIT = {"defense": "smd"}, {"defense": "split"}


def record(
    defense: str,
    scores: Sequence[float],
    metric: str = "span_exact",
    items: Sequence[dict[str, Any]] = (),
    **cell: Any,
) -> Record:
    """A cell whose prompts ``p0``, ``p1``, ... score as given; ``items`` changes what stands of each."""
    made = []
    for i, score in enumerate(scores):
        texts = {"truth_tokens": ["Ann", " Lee"], "guess_tokens": ["Ann", None]}
        ids = {"prompt_id": f"p{i}", "truth_ids": [i, 7], "guess_ids": [i, 7 * (score > 0)]}
        made.append(Item(metrics={metric: score, "attack_s": 1.0 + i}, **{**texts, **ids, **dict(*items[i : i + 1])}))
    names = (metric, "attack_s") if made else ()
    found = {name: summarise(name, [one.metrics[name] for one in made]) for name in names}
    return Record(Status.OK, make_cell(defense={"name": defense}, **cell), "", found, items_frame(made), {})


def compared(one: Sequence[float], other: Sequence[float], metric: str = "span_exact") -> reports.Compared:
    return reports.compare([record("smd", one, metric), record("split", other, metric)], SMD, SPLIT, metric)


def test_equal_means_with_opposite_flips_name_the_prompts() -> None:
    found = compared([1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0])
    assert (found.difference, found.p, found.better) == (0, 1, "")
    assert found.low < 0 < found.high
    assert {flip.prompt: flip.values for flip in found.flips} == {
        "p0": (1, 0), "p1": (1, 0), "p2": (0, 1), "p3": (0, 1),
    }  # fmt: skip
    assert found.equal == (1, 0)
    assert [item.guess_ids for item in found.flips[0].items] == [[0, 7], [0, 0]]
    assert found.names == ("smd", "split")


def test_the_side_that_leaks_less_is_better_and_utility_is_the_other_way() -> None:
    leaks = compared([1.0] * 10, [0.0] * 8 + [1.0] * 2)
    assert (leaks.difference, leaks.better) == (pytest.approx(0.8), "b")
    assert leaks.p == pytest.approx(stats.binomtest(8, 8).pvalue)
    assert leaks.low > 0
    assert compared([1.0] * 10, [0.0] * 8 + [1.0] * 2, "accuracy").better == "a"
    assert compared([1.0] * 4, [0.0] * 4).better == "", "four prompts show nothing, however they fall"


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 2), min_size=1, max_size=8), st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_mirrored_comparison_is_the_mirror_image(pairs: list[tuple[float, float]], random: Random) -> None:
    found = compared([one for one, _ in pairs], [other for _, other in pairs])
    turned = compared([other for _, other in pairs], [one for one, _ in pairs])
    assert (turned.difference, turned.low, turned.high, turned.p) == pytest.approx(
        (-found.difference, -found.high, -found.low, found.p), abs=1e-6
    )
    assert turned.better == {"a": "b", "b": "a", "": ""}[found.better]
    one, other = record("smd", [x for x, _ in pairs]), record("split", [y for _, y in pairs])
    shuffled = replace(other, items=other.items.sample(frac=1, random_state=random.randint(0, 99)))
    again = reports.compare([one, shuffled], SMD, SPLIT, "span_exact")
    assert again == found
    assert again.flips == found.flips


def test_prompts_that_are_no_pair_are_counted_with_the_reason() -> None:
    texts: list[dict[str, Any]] = [{}, {"truth_ids": [9, 9]}, {"truth_ids": [1]}, {"prompt_id": "other"}]
    found = reports.compare(
        [record("smd", [1, 1, 1, 1, float("nan")]), record("split", [0] * 5, items=texts)], SMD, SPLIT, "span_exact"
    )
    assert found.n == 1
    assert found.unpaired == {
        "served on one side alone": 2, "of other texts": 1, "of other lengths": 1, "without a value on one side": 1,
    }  # fmt: skip


def test_scores_are_paired_without_texts() -> None:
    bare = [without_texts(record("smd", [1, 0])), record("split", [0, 0])]
    found = reports.compare(bare, SMD, SPLIT, "span_exact")
    assert (found.n, found.texts, [flip.prompt for flip in found.flips]) == (2, False, ["p0"])


def test_several_metrics_and_pairs_are_judged_together() -> None:
    cells = [
        record(defense, [score] * 7, attack={"name": attack})
        for defense, score in (("smd", 1.0), ("split", 0.0))
        for attack in ("prior", "random", "reading")
    ]
    found = reports.compare_all(cells, SMD, SPLIT, ["span_exact", "attack_s"])
    assert [(one.metric, one.among) for one in found] == [("span_exact", 6)] * 3 + [("attack_s", 6)] * 3
    alone = reports.compare(cells, {**SMD, "attack": "prior"}, {**SPLIT, "attack": "prior"}, "span_exact")
    assert (alone.better, alone.p) == ("b", pytest.approx(2**-6))
    assert [one.adjusted for one in found[:3]] == [pytest.approx(6 * 2**-6)] * 3
    assert {one.better for one in found} == {""}


def test_what_no_attack_moves_counts_once() -> None:
    cells = [
        record(d, [0.5, 0.25], "greedy_equal", attack={"name": a})
        for d in ("smd", "split")
        for a in ("prior", "random")
    ]
    assert len(reports.compare_all(cells, SMD, SPLIT, ["greedy_equal"])) == 1
    assert len(reports.compare_all(cells, SMD, SPLIT, ["attack_s"])) == 2


SPAN = "span_exact"
GRID = [record("dp_text", [1, 0], attack={"name": a}, seed=s) for a in ("prior", "random") for s in (0, 1)]
GRID += [
    record("split", [1, 0], attack={"name": "prior"}),
    replace(record("po", []), status=Status.FAILED, reason="no room"),
]
DP = {"defense": "dp_text"}
ONE = {**DP, "seed": 0, "attack": "prior"}


@pytest.mark.parametrize(
    ("a", "b", "metric", "words"),
    [
        (DP, {"defense": "plit"}, SPAN, "no cell defense=plit: defense is dp_text, po, split"),
        (DP, {"defence": "split"}, SPAN, "no cell has a label defence"),
        ("nothing", DP, SPAN, "no cell nothing: there are 6"),
        (DP, {"defense": "po"}, SPAN, "defense=po is failed (no room): there is nothing to compare"),
        (DP, DP, SPAN, "defense=dp_text and defense=dp_text are the same"),
        (DP, {"attack": "prior"}, SPAN, "4 cells where one is needed: add one of attack=prior, random; seed=0"),
        ({**DP, "seed": 0}, {**DP, "seed": 1}, SPAN, "2 cells where one is needed: add one of attack=prior"),
        ({**DP, "seed": 1}, SPLIT, SPAN, "no cell of defense=dp_text,seed=1 has one of defense=split beside it"),
        (ONE, SPLIT, "kl", "has no kl prompt by prompt; there is span_exact, attack_s"),
        (ONE, SPLIT, "beauty", "beauty is no metric with a card"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(a: Any, b: Any, metric: str, words: str) -> None:
    with pytest.raises(RecordError) as raised:
        reports.compare(GRID, a, b, metric)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_cells_without_common_prompts_or_without_any_are_refused() -> None:
    strangers = [record("smd", [1]), record("split", [1], items=[{"prompt_id": "q"}])]
    with pytest.raises(
        RecordError, match=r"no prompts in common \(2 served on one side alone\): choose cells of one data"
    ):
        reports.compare(strangers, SMD, SPLIT, "span_exact")
    with pytest.raises(RecordError, match="holds no prompts"):
        reports.compare([record("smd", []), record("split", [1])], SMD, SPLIT, "span_exact")


def test_times_of_two_machines_are_not_compared() -> None:
    one, other = record("smd", [1, 0]), record("split", [0, 0])
    cells = [one, replace(other, environment={"cpu": {"name": "another"}})]
    with pytest.raises(RecordError, match="attack_s was measured on two machines"):
        reports.compare(cells, SMD, SPLIT, "attack_s")
    assert reports.compare(cells, SMD, SPLIT, "span_exact").n == 2


def test_controls_of_two_versions_of_the_scores_are_not_compared() -> None:
    one, other = record("smd", [1, 0], "control_span_exact"), record("split", [0, 0], "control_span_exact")
    assert reports.compare([one, other], SMD, SPLIT, "control_span_exact").difference == 0.5
    with pytest.raises(RecordError, match="control_span_exact was scored by two versions: smd score brings"):
        reports.compare([one, replace(other, scored=1)], SMD, SPLIT, "control_span_exact")


def test_a_frame_of_packed_records_says_where_the_prompts_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("smd", "split"):
        store.write(record(name, [1, 0]))
    file = pack(store.paths(), tmp_path / "packed.parquet")
    frame, held = load(file), list(records_in(file))
    shutil.rmtree(tmp_path / "cells")
    assert reports.compare(frame, SMD, SPLIT, "span_exact").n == 2
    file.rename(tmp_path / "elsewhere.parquet")
    with pytest.raises(RecordError, match="is not here, and a frame holds no prompts: give its records"):
        reports.compare(frame, SMD, SPLIT, "span_exact")
    assert reports.compare(held, SMD, SPLIT, "span_exact").n == 2


def test_cells_are_found_by_id_by_folder_and_in_two_folders(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    one, other = first.write(record("smd", [1, 0])), first.write(record("split", [0, 0]))
    second.write(record("smd", [0, 0]))
    frame = load(tmp_path / "first")
    assert one.path is not None
    for a, b in ((one.cell.id, other.cell.id), (one.path.name, "split-partial")):
        assert reports.compare(frame, a, b, "span_exact").difference == 0.5
    here, there = (Cells.at(store.results_dir).measured() for store in (first, second))
    found = matching(here, there, (), ("first", "second"))
    assert [pair[0].id for pair in found.pairs] == [one.cell.id]
    assert found.alone == (1, 0)
    assert meet(here, there, found.pairs[0]).compared("span_exact").names == ("", "")


def test_only_the_latest_version_of_a_cell_counts() -> None:
    old, new = (record("smd", [x, x], versions={"defense": v, "attack": 1}) for v, x in ((1, 1.0), (2, 0.0)))
    assert reports.compare([old, new, record("split", [1, 1])], SMD, SPLIT, "span_exact").means == (0, 1)


@pytest.mark.parametrize(
    ("scores", "verdict", "ours"),
    [
        ([(0, 1)] * 9, Judgement.HOLDS, "1 of 1 better, 0 worse; difference -100 %"),
        ([(1, 0)] * 9, Judgement.DOES_NOT, "0 of 1 better, 1 worse; difference 100 %"),
        ([(1, 0), (0, 1)] * 6, Judgement.UNDECIDED, "0 of 1 better, 0 worse; difference 0 %"),
    ],
)
def test_a_table_may_claim_that_one_is_better(
    scores: list[tuple[float, float]], verdict: Judgement, ours: str, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    cells = [record(name, [pair[i] for pair in scores]) for i, name in enumerate(("smd", "split"))]
    found = points(frame_of([store.write(one) for one in cells]))
    finding = better(found, Series("span_exact", SMD), SPLIT)
    assert (finding.verdict, finding.ours) == (verdict, ours)
    assert better(found, Series("span_exact", SMD), {"defense": "none"}).verdict is None
    with pytest.raises(RecordError, match="kl"):
        better([replace(point, quantity="kl") for point in found], Series("kl", SMD), SPLIT)
