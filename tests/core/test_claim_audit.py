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
