import math
from functools import partial

import pytest

from smd_research.core.cell import Cell
from smd_research.records import Record, Status, frame_of_sweep
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
from smd_research.reports.designs import Label
from smd_research.reports.points import Point, Series, points


def point(quantity: str, value: float, low: float = math.nan, **labels: Label) -> Point:
    return Point(labels, quantity, value, low, n=5)


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
    point("picked", 0.5, 0.4, k=7),
    point("bound", 0.2, k=7),
    point("picked", 0.15, 0.1, k=3),
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
    assert found.holds is holds
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
    assert times(wires, of, than, low=999).holds


def test_a_label_that_only_one_series_asks_for_is_the_same_in_both() -> None:
    two = [*USERS, *(Point({**p.labels, "model": "slow"}, p.quantity, 100 * p.value) for p in USERS)]
    of = Series("value", {"mode": "full", "users": 8, "model": "m"})
    assert times(two, of, SMD).ours == "2.65x"
    assert between(two, SMD, NONE, FULL).ours == "8 of 8 between"


def test_verdicts_are_words_for_findings() -> None:
    claim = Claim("c", "5", "abstract", partial(within, of=SMD))
    assert [verdict(claim, Finding("", holds)) for holds in (True, False, None)] == ["holds", "does not", "..."]
    shape = Claim("c", SHAPE, "Figure 4", partial(within, of=SMD))
    assert verdict(shape, Finding("", True)) == "shape only: holds"
    assert verdict(shape, Finding("", False), complete=False) == "shape only: does not so far"


def test_an_incomplete_table_judges_so_far() -> None:
    cells = [Cell({"name": "m"}, {"name": "d"}, {"name": "smd"}, seed=seed) for seed in (0, 1)]
    known = Record(Status.OK, cells[0], metrics={})
    found = [*points(frame_of_sweep(cells, [known])), *USERS]
    table = claims_table([Claim("all above one", "1", "aim", partial(within, of=SMD, low=1))], found, "t")
    assert [entry.text for entry in table.rows[0]][3:] == ["1.30 to 3.40", "holds so far"]
