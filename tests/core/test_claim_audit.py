"""A verdict says by how much a claim fails, where that is a number."""

import math

import pytest

from smd_research.core.claim_audit import ClaimAudit


@pytest.mark.parametrize(
    ("measured", "holds", "exact", "said"),
    [
        (0.5, True, True, "holds"),
        (0.5, True, False, "not refuted"),
        (2.5, False, True, "misses by 1.5"),
        (2.5, False, False, "refuted by 1.5"),
        (math.inf, False, True, "misses: nothing bounds it"),
        (0.9, False, False, "refuted: not the law that is claimed"),
    ],
)
def test_verdicts(measured: float, holds: bool, exact: bool, said: str) -> None:
    assert ClaimAudit("epsilon", 1.0, measured, holds, "somehow", 3, exact).verdict == said


@pytest.mark.parametrize(("claimed", "tested"), [(1.0, True), (4.0, False), (math.inf, False)])
def test_a_claim_that_no_such_game_could_refute_is_not_called_tested(claimed: float, tested: bool) -> None:
    audit = ClaimAudit("epsilon", claimed, 0.5, True, "a game", 100, exact=False, ceiling=4.0)
    assert audit.tested is tested
    assert audit.verdict == ("not refuted" if tested else "not tested: such a game shows 4 at most")
    assert ClaimAudit("epsilon", 3.0, 4.0, False, "a game", 100, exact=False, ceiling=4.0).verdict == "refuted by 1"
