"""One experiment, top to bottom: compose, look up, deploy, serve, attack, score, record.

``smd run key=value ...`` runs one cell, ``-m`` a sweep of them. A known cell is not run again, so re-issuing a command
continues it.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.commands import sweep
from experiments.composing.app import launch
from experiments.composing.cells import Plan, plan
from smd_research.core.errors import NotApplicableError

if TYPE_CHECKING:
    from experiments.trials.observe import Observation
    from experiments.trials.workbench import Workbench
    from smd_research.boundary import AdversaryView
    from smd_research.boundary.session import Impostor
    from smd_research.records import Record


def run_cell(plan: Plan, shared: dict[str, "Workbench"]) -> tuple["Record | None", bool]:
    """Run one cell, or reuse its record.

    Args:
        plan: what to run.
        shared: keeps the workbench between cells of one process; made at the first cell that has to run.

    Returns:
        The record, None when the cell is unknown and ``rerun=never``; and whether it was reused.

    Raises:
        RecordError: when the results folder cannot be written, or holds a corrupt record of this cell.
    """
    from smd_research.records import Record, Status, Store, decide

    store = Store(plan.results_dir)
    known = store.lookup(plan.cell) if plan.rerun != "always" else None
    action = decide(known, plan.rerun)
    if action != "run":
        return known, known is not None
    store.prepare()

    from experiments.trials.sinks import log
    from experiments.trials.workbench import Workbench

    try:
        record = measure(plan, shared.setdefault("workbench", Workbench()))
    except NotApplicableError as reason:
        record = Record(Status.NOT_APPLICABLE, plan.cell, str(reason))
    except Exception as error:
        sweep.trace(error)
        record = Record(Status.FAILED, plan.cell, sweep.one_line(error))
    record = store.write(record)
    log(plan.logger, record, plan.results_dir)
    return record, False


def measure(plan: Plan, workbench: "Workbench") -> "Record":
    """Deploy the defense, serve the prompts, attack what was seen, score."""
    import torch

    from attacks.base import Attack, Public, TemplateAttack, WeightAttack
    from experiments.composing.build import build
    from experiments.trials.attacking import check, recover_all
    from experiments.trials.impersonate import effect
    from experiments.trials.restoring import restore
    from experiments.trials.scoring import score
    from experiments.trials.tuning import measure_task
    from smd_research.boundary import Link
    from smd_research.defenses.base import Defense
    from smd_research.records import Record, Status, environment, items_frame

    torch.set_num_threads(plan.threads)
    if plan.cell.task is not None:
        return measure_task(plan, workbench)
    began = time.perf_counter()
    cell, parts = plan.cell, plan.parts
    defense: Defense = build(parts["defense"], Defense)
    attack: Attack | None = build(parts["attack"], Attack) if parts["attack"]["_target_"] else None
    if attack:
        check(attack, defense.shows)

    bundle, corpus = workbench.bundle(plan), workbench.corpus(plan)
    observation = workbench.observation(plan, defense)
    observed = time.perf_counter()
    attempts, weights = None, {}
    if attack:
        prepared = observation.prepared
        marked = tuple(document.spans for document in workbench.public_text(plan))
        more = partial(workbench.more_text, plan)
        public = Public(
            prepared.public, str(cell.defense["name"]), prepared.parameters, corpus, marked, more, prepared.base
        )
        prompts = [one.prompt for one in observation.served]
        hidden = workbench.hidden(plan, attack, prompts) if isinstance(attack, TemplateAttack) else ()
        views, refused = seen(plan, observation, attack.impostor(public))
        if isinstance(attack, WeightAttack):
            held_out, others = workbench.held_out(plan), partial(record_of, workbench=workbench)
            shown = [view for _, view in views]
            weights = restore(attack, public, shown, bundle, held_out, plan, others)
            weights |= effect([one.view for one in observation.served], shown, refused)
        else:
            attempts = recover_all(attack, public, views, cell.seed, hidden, refused)
    attacked = time.perf_counter()

    estimates, items = score(bundle, observation, attempts, build(parts["link"], Link))
    wall = {"observe": observed - began, "attack": attacked - observed, "score": time.perf_counter() - attacked}
    where = {**environment(cell.device, wall), **public_facts(observation)}
    return Record(Status.OK, cell, metrics=estimates | weights, items=items_frame(items), environment=where)


def record_of(plan: Plan, workbench: "Workbench") -> "Record | None":
    """The record of a cell beside which another stands; run when it is unknown."""
    return run_cell(plan, {"workbench": workbench})[0]


def seen(
    plan: Plan, observation: "Observation", impostor: "Impostor | None"
) -> tuple[list[tuple[str, "AdversaryView"]], list[bool]]:
    """Names and views of the prompts, the honest provider's or an impostor's, and which requests were refused to it."""
    from experiments.trials.impersonate import impersonated

    if impostor is None:
        return [(one.prompt.id, one.view) for one in observation.served], []
    cell = plan.cell
    found = impersonated(
        observation.prepared,
        [one.prompt for one in observation.served],
        impostor,
        max_new_tokens=cell.max_new_tokens,
        transport=cell.transport,
        threads=plan.threads,
    )
    names = [one.prompt.id for one in observation.served]
    return list(zip(names, (one.view for one in found), strict=True)), [one.refused for one in found]


def public_facts(observation: "Observation") -> dict[str, Any]:
    """What a defense promises, and its parameters as deployed (an epsilon chosen by survival is known only then)."""
    prepared = observation.prepared
    parameters = {k: value for k, value in prepared.published().items() if isinstance(value, str | int | float)}
    return {"guarantee": str(prepared.guarantee or "none"), "parameters": parameters}


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd run`` command.

    Returns:
        0; 1 when a cell failed, or a single run does not apply; 2 for a command line that cannot be composed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    journal = sweep.Journal.new()
    shared: dict[str, Workbench] = {}

    def one(cfg: DictConfig) -> None:
        job = HydraConfig.get()
        overrides = [word for word in job.overrides.task if not word.startswith("rerun=")]
        asked = plan(cfg, job.runtime.choices, overrides)
        sweep.attempt(asked, lambda: run_cell(asked, shared), journal, sweep.position(job, words))

    code = launch(one, "config", "smd run", words)
    return code or sweep.finish(journal, shlex.join(["smd", "run", *words]))


if __name__ == "__main__":
    sys.exit(main())
