"""Attacks on secret weights: the model is restored once from all views and what is public, then scored.

An attack that trains stands beside its control: a model trained from scratch on the same data for as many steps, a
cell of its own, looked up, or run when it is unknown, and compared document by document. What such an attack searches
for at seed 0 it takes from that cell's record at other seeds.
"""

import time

from attacks.base import WeightAttack
from experiments.trials.impersonating import effect
from experiments.trials.plan import Plan
from experiments.trials.pursuit import READS_PROMPTS, Findings, Kind, Pursuit
from experiments.trials.restoration import compared
from experiments.trials.seen import TUNE
from smd_research.core.errors import LabError, NotApplicableError
from smd_research.core.seeds import generator
from smd_research.metrics import Estimate
from smd_research.records import Item, Record, Status

RESTORED = "restored_nll"
"""Of an item: the restored model's summed negative log-likelihood of a held-out document, in nats."""


def pursue(attack: WeightAttack, pursuit: Pursuit) -> Findings:
    """Restore the weights, and score the restored model on held-out text beside the original and the exposed one.

    Raises:
        NotApplicableError: when the attack finds that it cannot be run here.
        LabError: when a cell that this one stands beside failed.
    """
    plan, seen = pursuit.plan, pursuit.seen
    shown = pursuit.shown(attack)
    if attack.settles and pursuit.seed:
        attack.settle(_record(pursuit, plan.beside(["seed=0"])).metrics[attack.settles].mean)
    attack.fit(pursuit.public)
    began = time.perf_counter()
    guess = attack.restore(shown.views, generator(pursuit.seed, "attack", "weights"))
    seconds = time.perf_counter() - began
    scratch, control = None, attack.control()
    if control is not None:
        budget = [f"attack.{name}={value}" for name, value in control.items()]
        beside = _record(pursuit, plan.beside(["defense=none", "attack=from_scratch", *budget]))
        scratch = beside.items[RESTORED].dropna().tolist()
    held_out, true = pursuit.workbench.held_out(plan), pursuit.workbench.scored(plan)
    original = pursuit.workbench.bundle(plan)
    found, back = compared(original, pursuit.public, guess, attack.relative, held_out, true, scratch)
    metrics = {name: estimate for name, estimate in found.items() if estimate.n} | {"attack_s": Estimate(seconds)}
    items = tuple(Item(f"held-out-{n}", {RESTORED: nll}) for n, nll in enumerate(back))
    return Findings(metrics=metrics | effect(seen.views, shown), items=items)


def _record(pursuit: Pursuit, plan: Plan) -> Record:
    """The record of a cell that this one stands beside."""
    record = pursuit.record_of(plan)
    if record is not None and record.status is Status.NOT_APPLICABLE:
        raise NotApplicableError(record.reason)
    if record is None or record.status is not Status.OK:
        reason = "has no record" if record is None else f"is {record.status}: {record.reason}"
        raise LabError(f"the cell that this one stands beside {reason} ({plan.cell.command})")
    return record


KIND = Kind(WeightAttack, pursue, {TUNE: READS_PROMPTS})
