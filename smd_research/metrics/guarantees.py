"""What is claimed of a privacy mechanism, and what an audit finds: epsilons of one notion, never compared across."""

import math
from collections.abc import Sequence

from smd_research.core.claim_audit import ClaimAudit
from smd_research.metrics.card import Card
from smd_research.metrics.estimate import Estimate

CLAIMED_EPSILON = Card(
    "claimed_epsilon", "claimed epsilon", "privacy", "", "lower", "", None, "known",
    "of the pairs of inputs that the claim is about, in the notion of the mechanism's own guarantee",
)  # fmt: skip

MEASURED_EPSILON = Card(
    "measured_epsilon", "measured epsilon", "privacy", "", "lower", "", None, "known",
    "of the same pairs: exact where outputs can be counted, else a lower bound; absent where nothing bounds it",
)  # fmt: skip

MEASURABLE_EPSILON = Card(
    "measurable_epsilon", "measurable epsilon", "privacy", "", "higher", "", None, "known",
    "the most that the audit could have measured, of a game that is always won: it tests no claim from there on",
)  # fmt: skip

CLAIM_HOLDS = Card.known("claim_holds", "claim holds", "1 where what is measured is no more than what is claimed")

CLAIM_EXACT = Card.known("claim_exact", "exact", "1 where the measured epsilon is exact, 0 where it is a lower bound")

SUPPORT_DIFFERS = Card.known(
    "support_differs", "supports that differ", "pairs of inputs of which one can become what the other cannot"
)

CANARY_ADVANTAGE = Card(
    "canary_advantage", "canary advantage", "privacy", "", "lower", "0: half of the guesses are right", 1.0, "excess",
    "share of canaries that are guessed right, in or out, minus share guessed wrong",
)  # fmt: skip

AUDITED = Card.cost("audited", "audited", "pairs or draws", "pairs of inputs compared, or draws on each side")


def audit_metrics(audit: ClaimAudit) -> dict[str, Estimate]:
    """Metrics of one claim."""
    found = {
        "claimed_epsilon": audit.claimed,
        "measured_epsilon": audit.measured,
        "measurable_epsilon": audit.ceiling,
        "claim_holds": float(audit.holds),
        "claim_exact": float(audit.exact),
        "support_differs": math.nan if audit.differing is None else audit.differing,
        "audited": float(audit.n),
    }
    known = {name: Estimate(value) for name, value in found.items() if math.isfinite(value)}
    return known | ({"canary_advantage": Estimate(*audit.advantage, n=audit.n)} if audit.advantage else {})


def weakest(audits: Sequence[ClaimAudit]) -> ClaimAudit:
    """The claim that fails by most, or where none fails, the one that is nearest to it."""
    return max(audits, key=lambda one: (not one.holds, one.measured - one.claimed))
