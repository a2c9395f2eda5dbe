"""A cell with a task: key and implant at the client, private tuning and inference at the provider, attack, score.

Each phase keeps its state in a folder (``phase_folders``): a command that was killed goes on from there
with equal results, and cells that differ in the attack alone share it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from attacks.base import Attack, Public
from experiments.composing.build import build
from experiments.composing.cells import Plan
from experiments.progress import steps
from experiments.trials.phase_folders import held, makes
from experiments.trials.tuning_attacks import admitted, attacked
from experiments.trials.tuning_scores import Seen, cost, utility
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.observable import Observable
from smd_research.data.tasks import Task
from smd_research.data.tasks.base import EVALUATION, TRAIN, VALIDATION
from smd_research.data.tasks.rows import class_words, texts_of
from smd_research.defenses.base import Defense, PublicText
from smd_research.defenses.tunable import Tunable, TunablePrepared
from smd_research.defenses.tuning import TuningClient, TuningDeployment
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.records import Record, Status, environment, items_frame
from smd_research.training.flops import forward_flops
from smd_research.training.methods import Machine, Tuning

SILENCE_S = 600.0
"""How long a provider may be silent: it tells of every step, but not of reading a large model."""

PUBLIC_TEXTS = 1000
"""Public texts like the task's that recovery training may have, where the task has any."""


@dataclass(frozen=True, repr=False)
class Cycle:
    """One life of a tuned model.

    Attributes:
        prepared: what the client made: the model to tune, and its code.
        tuned: the model as the provider holds it afterwards.
        views: what the provider saw: of the upload, of tuning, of inference.
        seen: texts, answers and what each phase took.
    """

    prepared: TunablePrepared
    tuned: Bundle
    views: tuple[AdversaryView, ...]
    seen: Seen


def measure_task(plan: Plan, workbench: Workbench) -> Record:
    """Implant, tune, infer, attack what was seen, score.

    Raises:
        NotApplicableError: for a defense under which nothing can be tuned, or an attack that reads no such upload.
    """
    began = time.perf_counter()
    cell, parts = plan.cell, plan.parts
    defense: Defense = build(parts["defense"], Defense)
    attack: Attack | None = build(parts["attack"], Attack) if parts["attack"]["_target_"] else None
    if not isinstance(defense, Tunable):
        raise NotApplicableError(f"nothing can be tuned under {cell.defense['name']}: use one of its kind, e.g. none")
    if attack:
        admitted(attack, defense.tuning_shows)
    bundle, corpus = workbench.bundle(plan), workbench.corpus(plan)
    cycle = workbench.cycle(makes(plan, "tune"), lambda: live(plan, defense, bundle, corpus))
    observed = time.perf_counter()

    scores, items = utility(cycle.seen)
    found: dict[str, Estimate] = {}
    if attack:
        name, prepared = str(cell.defense["name"]), cycle.prepared
        more = partial(workbench.more_text, plan)
        public = Public(
            cycle.tuned, name, prepared.parameters, corpus, more=more, base=prepared.base, before=prepared.public
        )
        found, read = attacked(attack, public, cycle.views, prepared.code, cycle.seen, cell.seed)
        items += read
    ended = time.perf_counter()
    wall = {"observe": observed - began, "attack": ended - observed}
    where = {
        **environment(cell.device, wall),
        "guarantee": str(cycle.prepared.guarantee or "none"),
        "parameters": {k: v for k, v in cycle.prepared.published().items() if isinstance(v, str | int | float)},
    }
    metrics = {**scores, **cost(cycle.seen), **found}
    return Record(Status.OK, cell, metrics=metrics, items=items_frame(items), environment=where)


def live(plan: Plan, defense: Tunable, bundle: Bundle, corpus: Sequence[Sequence[int]]) -> Cycle:
    """Key and implant at the client, then private tuning and inference with the recorder on.

    Raises:
        ConfigError: for a task that this model or machine cannot take; names what is wrong.
    """
    if plan.address is not None:
        raise ConfigError("private tuning reads the provider's folder on this machine: leave address= out")
    cell = plan.cell
    task: Task = build(plan.parts["task"], Task)
    tuning: Tuning = build(plan.parts["tuning"], Tuning)
    training, held_out, evaluation = (
        texts_of(task.examples(split, n, cell.seed), task, bundle)
        for split, n in ((TRAIN, task.train), (VALIDATION, task.validation), (EVALUATION, task.evaluation))
    )
    words = class_words(task, bundle.tokenizer) if tuning.head == "words" else ()
    public = task.public(PUBLIC_TEXTS, cell.seed)
    text = PublicText(corpus, texts_of(public, task, bundle).ids if public else ())
    with held(plan, "implant") as folder:
        prepared = defense.prepare(bundle, text, cell.seed, folder)
    boundary = Boundary(cell.transport, record=True, threads=plan.threads, timeout_s=SILENCE_S)
    asked = prepared, boundary, len(task.labels), tuning, _machine(plan)
    with (
        held(plan, "tune") as folder,
        steps("private tuning") as on_step,
        TuningDeployment(*asked, folder, TuningClient(on_step)) as deployment,
    ):
        phases = Phases(boundary, prepared.tuning_shows)
        deployment.upload(training)
        deployment.upload(held_out, held_out=True, first=len(training.ids))
        phases.end("tune")
        outcome = deployment.tune(words, cell.seed)
        phases.end("tune")
        began, first = time.perf_counter(), len(training.ids) + len(held_out.ids)
        predicted = deployment.classify(evaluation, first=first) if task.labels else []
        scored = [] if task.labels else deployment.next_token(evaluation, first=first)
        inferred = time.perf_counter() - began
        phases.end("infer")
        tuned = deployment.tuned
    taken = {"infer_s": inferred, "infer_gflop": forward_flops(bundle.model, evaluation.tokens) / 1e9}
    taken |= {"tune_s": outcome["seconds"], "tune_gflop": outcome["flops"] / 1e9, "tune_steps": outcome["steps"]}
    taken |= {**phases.bytes, **_client_cost(prepared)}
    seen = Seen(task, training, held_out, evaluation, tuple(predicted), tuple(scored), taken)
    return Cycle(prepared, tuned, tuple(phases.views), seen)


class Phases:
    """What the provider saw and the bytes that crossed, phase by phase.

    Args:
        boundary: joins the parties.
        shows: what the provider sees.
    """

    def __init__(self, boundary: Boundary, shows: frozenset[Observable]) -> None:
        self._boundary, self._shows = boundary, shows
        self.views: list[AdversaryView] = []
        self.bytes: dict[str, float] = {}

    def end(self, phase: str) -> None:
        """A phase, or a part of one, is over."""
        self.views.append(self._boundary.view(self._shows))
        ledger, name = self._boundary.ledger, f"{phase}_bytes"
        self.bytes[name] = self.bytes.get(name, 0.0) + ledger.bytes_to_untrusted + ledger.bytes_to_trusted
        self._boundary.begin()


def _client_cost(prepared: TunablePrepared) -> dict[str, float]:
    """Of the phases at the client; a model that was changed there is sent whole."""
    taken = {f"{phase}_s": seconds for phase, seconds in prepared.seconds.items()}
    taken |= {f"{phase}_gflop": flops / 1e9 for phase, flops in prepared.flops.items()}
    if prepared.public is not prepared.bundle:
        taken["implant_bytes"] = float(prepared.public.weight_bytes)
    return taken


def _machine(plan: Plan) -> Machine:
    options = dict(plan.trainer)
    options["accelerator"] = options.get("accelerator") or ("gpu" if plan.cell.device.startswith("cuda") else "cpu")
    return Machine(**options)
