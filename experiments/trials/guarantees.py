"""Attacks on promises: every claim of the mechanism is audited, and the weakest stands for the cell."""

import time

from attacks.base import GuaranteeAttack
from experiments.trials.pursuit import Findings, Kind, Pursuit
from smd_research.core.progress import say
from smd_research.core.seeds import generator
from smd_research.metrics import Estimate
from smd_research.metrics.guarantees import audit_metrics, weakest


def pursue(attack: GuaranteeAttack, pursuit: Pursuit) -> Findings:
    """Audit what is promised.

    Raises:
        NotApplicableError: where nothing is.
    """
    attack.fit(pursuit.public)
    began = time.perf_counter()
    audits = attack.refute(generator(pursuit.seed, "attack", "guarantee"))
    seconds = time.perf_counter() - began
    for one in audits:
        say(f"  {one.claim}: claimed {one.claimed:.4g}, measured {one.measured:.4g}, {one.verdict} ({one.how})")
    return Findings(metrics=audit_metrics(weakest(audits)) | {"attack_s": Estimate(seconds)})


KIND = Kind(GuaranteeAttack, pursue)
