import math
from functools import partial

import pytest

from smd_research.core.cell import Cell
from smd_research.records import Record, Status, frame_of_sweep
from smd_research.records.options import Label
from smd_research.reports.claims import (
    SHAPE,
    Claim,
    Finding,
    Rule,
    between,
    claims_table,
    exceeds,
    exceeds_by,
    flat,
    grows_slower,
    largest,
    not_above,
    same_order,
    some_within,
    times,
    verdict,
    within,
)
from smd_research.reports.points import Point, Series, points
from smd_research.reports.verdicts import Judgement


def point(quantity: str, value: float, reach: float = math.nan, **labels: Label) -> Point:
    return Point(labels, quantity, value, value - reach, value + reach, n=5)


USERS = [
    point("value", slope * users + 1, users=users, mode=mode, model="m")
    for users in (1, 2, 4, 8)
    for mode, slope in (("none", 0.1), ("smd", 0.3), ("full", 1.0))
]
SMD = Series("value", {"mode": "smd"})
NONE = Series("value", {"mode": "none"})
FULL = Series("value", {"mode": "full"})
STAGES = [point("q_ms", 1.0, send="a"), point("link_ms", 5.0, send="a"), point("q_ms", 1.0, send="b")]
PICKED = [
    point("picked", 0.5, 0.1, k=7),
    point("bound", 0.2, k=7),
    point("picked", 0.15, 0.05, k=3),
    point("bound", 0.3, k=3),
]
BOUND = Series("bound")


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        (partial(between, of=SMD, low=NONE, high=FULL), True),
        (partial(between, of=FULL, low=NONE, high=SMD), False),
        (partial(within, of=SMD, low=1.3, high=3.4), True),
        (partial(within, of=SMD, low=2), False),
        (partial(some_within, of=SMD, low=2), True),
        (partial(some_within, of=SMD, low=9), False),
        (partial(same_order, of=SMD, value=2), True),
        (partial(same_order, of=SMD, value=20), False),
        (partial(times, of=FULL, than=SMD, low=1.5), True),
        (partial(times, of=FULL, than=SMD, low=1.6), False),
        (partial(exceeds_by, of=SMD, than=NONE, low=0.1, high=1.7), True),
        (partial(exceeds_by, of=SMD, than=NONE, high=1.5), False),
        (partial(grows_slower, of=SMD, than=FULL, over="users", share=0.31), True),
        (partial(grows_slower, of=SMD, than=FULL, over="users", share=0.29), False),
        (partial(flat, of=NONE, over=["users"], tolerance=0.7), True),
        (partial(flat, of=FULL, over=["users"], tolerance=0.7), False),
        (partial(not_above, of=Series("picked"), bound=BOUND), False),
        (partial(exceeds, of=Series("picked"), bound=BOUND), True),
        (partial(not_above, of=Series("picked", {"k": 3}), bound=BOUND), True),
        (partial(largest, of="link_ms", among=["q_ms"]), True),
        (partial(largest, of="q_ms", among=["link_ms"]), False),
    ],
)  # fmt: skip
def test_rules_hold_or_do_not_and_wait_for_figures(rule: Rule, holds: bool) -> None:
    found = rule([*USERS, *STAGES, *PICKED])
    assert found.verdict is (Judgement.HOLDS if holds else Judgement.DOES_NOT)
    assert found.ours != "..."
    assert rule([]) == Finding("...", None)


def test_the_slope_is_the_one_of_the_curve() -> None:
    assert grows_slower(USERS, SMD, FULL, "users").ours == "0.30x the slope"


def test_a_setting_that_a_part_takes_over_goes_with_it() -> None:
    wires = [
        Point({"wire_dtype": wire, "defense": "smd", "defense.wire_dtype": wire}, "error", error)
        for wire, error in (("fp32", 1e-6), ("fp16", 1e-3))
    ]
    of, than = (Series("error", {"wire_dtype": wire}) for wire in ("fp16", "fp32"))
    assert times(wires, of, than, low=999).verdict is Judgement.HOLDS


def test_a_label_that_only_one_series_asks_for_is_the_same_in_both() -> None:
    two = [*USERS, *(Point({**p.labels, "model": "slow"}, p.quantity, 100 * p.value) for p in USERS)]
    of = Series("value", {"mode": "full", "users": 8, "model": "m"})
    assert times(two, of, SMD).ours == "2.65x"
    assert between(two, SMD, NONE, FULL).ours == "8 of 8 between"


def test_verdicts_are_words_for_findings() -> None:
    claim = Claim("c", "5", "abstract", partial(within, of=SMD))
    words = [verdict(claim, Finding("", one)) for one in (*Judgement, None)]
    assert words == ["holds", "does not", "undecided", "..."]
    shape = Claim("c", SHAPE, "Figure 4", partial(within, of=SMD))
    assert verdict(shape, Finding("", Judgement.HOLDS)) == "shape only: holds"
    assert verdict(shape, Finding("", Judgement.DOES_NOT), complete=False) == "shape only: does not so far"


def test_an_incomplete_table_judges_so_far() -> None:
    cells = [Cell({"name": "m"}, {"name": "d"}, {"name": "smd"}, seed=seed) for seed in (0, 1)]
    known = Record(Status.OK, cells[0], metrics={})
    found = [*points(frame_of_sweep(cells, [known])), *USERS]
    table = claims_table([Claim("all above one", "1", "aim", partial(within, of=SMD, low=1))], found, "t")
    assert [entry.text for entry in table.rows[0]][3:] == ["1.30 to 3.40", "holds so far"]


@pytest.mark.parametrize(
    ("rule", "reach"),
    [
        (partial(within, of=Series("q"), low=0.9), 0.2),
        (partial(some_within, of=Series("q"), low=1.05), 0.2),
        (partial(exceeds_by, of=Series("q"), than=Series("r"), low=0.1), 0.3),
        (partial(times, of=Series("q"), than=Series("r"), low=1.5), 0.3),
        (partial(not_above, of=Series("q"), bound=Series("r")), 0.6),
        (partial(exceeds, of=Series("q"), bound=Series("r")), 0.6),
        (partial(between, of=Series("q"), low=Series("r"), high=Series("s")), 0.6),
        (partial(flat, of=Series("q"), over=["x"], tolerance=0.2), 0.2),
        (partial(grows_slower, of=Series("r"), than=Series("q"), over="x"), 0.6),
        (partial(largest, of="q", among=["r"]), 0.6),
    ],
)
def test_every_rule_is_undecided_where_its_intervals_reach_across(rule: Rule, reach: float) -> None:
    def measured(reach: float) -> list[Point]:
        figures = {"q": (1.0, 1.1), "r": (0.5, 0.5), "s": (1.5, 1.6)}
        return [point(name, values[x], reach, x=x) for name, values in figures.items() for x in (0, 1)]

    assert rule(measured(reach)).verdict is Judgement.UNDECIDED
    assert rule(measured(0.001)).verdict is not Judgement.UNDECIDED


def test_an_exact_value_is_asked_of_what_was_measured() -> None:
    equal = [point("greedy", 1.0, 0.17, x=x) for x in (0, 1)]
    assert within(equal, Series("greedy"), low=1, high=1) == Finding("2 of 2 exactly", Judgement.HOLDS)
    assert within([*equal, point("greedy", 0.99, 0.17, x=2)], Series("greedy"), 1, 1).verdict is Judgement.DOES_NOT


def test_one_of_many_that_is_above_by_accident_refutes_nothing() -> None:
    bound = [point("bound", 0.5, x=x) for x in range(20)]
    one_above = [point("found", 0.61 if x == 3 else 0.4, 0.1, x=x) for x in range(20)]
    found = not_above([*bound, *one_above], Series("found"), Series("bound"))
    assert found.ours.startswith("0 of 20 above")
    assert found.verdict is Judgement.UNDECIDED
    alone = [p for p in (*bound, *one_above) if p.labels["x"] == 3]
    assert not_above(alone, Series("found"), Series("bound")).verdict is Judgement.DOES_NOT
