"""One experiment, top to bottom: prepare, live, pursue, score, record."""

import time
from collections.abc import Callable

import torch

from attacks.base import Public
from experiments.trials.lives import Life, life_of
from experiments.trials.plan import Plan
from experiments.trials.pursuing import admit, pursue
from experiments.trials.pursuit import Findings, Pursuit
from experiments.trials.scoring import score
from experiments.trials.seen import Seen
from experiments.trials.workbench import Workbench
from smd_research.core.wrapper import BARE
from smd_research.defenses.base import Defense
from smd_research.records import Record, Status, environment, items_frame


def trial(plan: Plan, workbench: Workbench, record_of: Callable[[Plan], Record | None]) -> Record:
    """Run one cell.

    Args:
        plan: what to run.
        workbench: what cells of one process share.
        record_of: the record of another cell, beside which this one stands; run when it is unknown.

    Raises:
        NotApplicableError: when defense, life and attack do not go together.
        LabError: for whatever stops one of them.
    """
    torch.set_num_threads(plan.threads)
    began = time.perf_counter()
    life, defense, attack = life_of(plan), plan.parts.defense(), plan.parts.attack()
    shows = life.shows(defense, plan)
    if attack is not None:
        admit(attack, life.name, shows)

    seen = lived(plan, workbench, life, defense)
    observed = time.perf_counter()
    findings = Findings()
    if attack is not None:
        public = knowledge(plan, workbench, seen)
        findings = pursue(attack, Pursuit(plan, workbench, seen, public, life.replay, record_of))
    attacked = time.perf_counter()
    estimates, items = score(seen, findings, plan.parts.link())

    wall = {"observe": observed - began, "attack": attacked - observed, "score": time.perf_counter() - attacked}
    where = {**environment(plan.cell.device, wall), "guarantee": seen.guarantees}
    where["parameters"] = {k: v for k, v in seen.prepared.published().items() if isinstance(v, str | int | float)}
    where["special_ids"] = sorted(seen.truth.bundle.special_ids)  # no score counts them
    return Record(Status.OK, plan.cell, metrics=estimates, items=items_frame(items), environment=where)


def lived(plan: Plan, workbench: Workbench, life: Life, defense: Defense) -> Seen:
    """What the cell's life leaves; cells that differ in the attack alone share it."""

    def live() -> Seen:
        prepared = life.prepare(plan, workbench, defense)
        return life.live(plan, workbench, prepared)

    return workbench.lived(life.name, life.makes(plan), live)


def knowledge(plan: Plan, workbench: Workbench, seen: Seen) -> Public:
    """What the adversary knows besides its views (Kerckhoffs)."""
    documents, prompts = workbench.public_text(plan), seen.truth.prompts
    return Public(
        seen.public,
        str(plan.cell.defense["name"]),
        (*seen.prepared.parameters, *seen.mechanisms),
        corpus=tuple(document.ids for document in documents),
        spans=tuple(document.spans for document in documents),
        more=lambda tokens: workbench.more_text(plan, tokens),
        base=seen.prepared.base,
        before=seen.before,
        wrapper=prompts[0].wrapper if prompts else BARE,
    )
