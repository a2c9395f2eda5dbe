"""The life of a model with a task: prepared at the client, tuned and used at the provider.

Each phase keeps its state in a folder (``phase_folders``): a command that was killed goes on from there with equal
results, and cells that differ in the attack alone share it.
"""

import time
from collections.abc import Sequence

from experiments.trials.phase_folders import held
from experiments.trials.plan import Plan
from experiments.trials.seen import Cost, Seen, TaskTexts, Truth
from experiments.trials.tuned import utility
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import NotApplicableError
from smd_research.core.guarantee import Guarantee
from smd_research.core.observable import Observable
from smd_research.core.progress import steps
from smd_research.data.tasks import Task
from smd_research.data.tasks.base import EVALUATION, TRAIN, VALIDATION
from smd_research.data.tasks.rows import class_words, texts_of
from smd_research.defenses.base import Defense, Prepared, PublicText
from smd_research.defenses.tunable import Tunable, TunablePrepared
from smd_research.defenses.tuning import TuningClient, TuningDeployment
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.training.flops import forward_flops
from smd_research.training.methods import Machine, Private, Tuning

SILENCE_S = 600.0
"""How long a provider may be silent: it tells of every step, but not of reading a large model."""

PUBLIC_TEXTS = 1000
"""Public texts like the task's that recovery training may have, where the task has any."""


def shows(defense: Defense, plan: Plan) -> frozenset[Observable]:
    """What the provider sees of private tuning and inference.

    Raises:
        NotApplicableError: for a defense under which nothing can be tuned.
    """
    if not isinstance(defense, Tunable):
        name = plan.cell.defense["name"]
        raise NotApplicableError(f"nothing can be tuned under {name}: use one of its kind, e.g. none")
    return defense.tuning_shows


def prepare(plan: Plan, workbench: Workbench, defense: Defense) -> Prepared:
    """The client's part before anything private is sent.

    Raises:
        ConfigError: for a task that this model cannot take.
    """
    bundle, task = workbench.bundle(plan), _task(plan)
    texts, tuning = _texts(plan, bundle), _tuning(plan)
    _words(texts, tuning, bundle)  # what is wrong with the task is said before anything is trained
    _promised(tuning, texts, tuning.steps)
    public = task.public(PUBLIC_TEXTS, plan.cell.seed)
    text = PublicText(workbench.corpus(plan), texts_of(public, task, bundle).ids if public else ())
    with held(plan, "implant") as folder:
        return defense.prepare(bundle, text, plan.cell.seed, folder)


def live(plan: Plan, workbench: Workbench, prepared: Prepared) -> Seen:
    """Private tuning and inference with the recorder on.

    Raises:
        ConfigError: for a task that this model or machine cannot take; names what is wrong.
    """
    assert isinstance(prepared, TunablePrepared)
    bundle = prepared.bundle
    texts, tuning = _texts(plan, bundle), _tuning(plan)
    boundary = Boundary(plan.cell.transport, record=True, threads=plan.threads, timeout_s=SILENCE_S)
    asked = prepared, boundary, len(texts.task.labels), tuning, _machine(plan)
    with (
        held(plan, "tune") as folder,
        steps("private tuning") as on_step,
        TuningDeployment(*asked, folder, TuningClient(on_step)) as deployment,
    ):
        phases = Phases(boundary, prepared.tuning_shows)
        deployment.upload(texts.training)
        deployment.upload(texts.held_out, held_out=True, first=len(texts.training.ids))
        phases.end("tune")
        outcome = deployment.tune(_words(texts, tuning, bundle), plan.cell.seed)
        phases.end("tune")
        began, first = time.perf_counter(), len(texts.training.ids) + len(texts.held_out.ids)
        predicted = deployment.classify(texts.evaluation, first=first) if texts.task.labels else []
        scored = [] if texts.task.labels else deployment.next_token(texts.evaluation, first=first)
        inferred = time.perf_counter() - began
        phases.end("infer")
        tuned = deployment.tuned
    taken = {"infer_s": inferred, "infer_gflop": forward_flops(bundle.model, texts.evaluation.tokens) / 1e9}
    taken |= {"tune_s": outcome["seconds"], "tune_gflop": outcome["flops"] / 1e9, "tune_steps": outcome["steps"]}
    taken |= {**phases.bytes, **_client_cost(prepared)}
    taken |= _noise(tuning, len(texts.training.ids), int(outcome["steps"]))
    return Seen(
        prepared,
        tuned,
        prepared.public,
        tuple(phases.views),
        Truth(bundle, texts=texts),
        utility(texts, predicted, scored),
        Cost(means={name: Estimate(float(value)) for name, value in taken.items()}),
        _promised(tuning, texts, int(outcome["steps"])),
        (*_responses(tuning, texts), tuning),
    )


def _task(plan: Plan) -> Task:
    assert plan.parts.task is not None
    return plan.parts.task()


def _tuning(plan: Plan) -> Tuning:
    assert plan.parts.tuning is not None
    return plan.parts.tuning()


def _texts(plan: Plan, bundle: Bundle) -> TaskTexts:
    """The texts of the cell's task.

    Raises:
        ConfigError: when one of its parts is empty.
    """
    task, seed = _task(plan), plan.cell.seed
    parts = ((TRAIN, task.train), (VALIDATION, task.validation), (EVALUATION, task.evaluation))
    return TaskTexts(task, *(texts_of(task.examples(split, n, seed), task, bundle) for split, n in parts))


def _words(texts: TaskTexts, tuning: Tuning, bundle: Bundle) -> tuple[int, ...]:
    """The token of each class, where the head reads words."""
    return class_words(texts.task, bundle.tokenizer) if tuning.head == "words" else ()


def _promised(tuning: Tuning, texts: TaskTexts, steps: int) -> tuple[Guarantee, ...]:
    """What tuning promises beside the defense.

    Raises:
        ConfigError: for what cannot be promised of these texts.
    """
    promised = [response.guarantee() for response in _responses(tuning, texts)]
    return (*promised, *([tuning.guarantee(len(texts.training.ids), steps)] if isinstance(tuning, Private) else []))


def _responses(tuning: Tuning, texts: TaskTexts) -> Sequence[RandomisedResponse]:
    """How classes are told, where that is not as they are."""
    epsilon = tuning.label_epsilon
    return [] if epsilon is None else [RandomisedResponse(epsilon, len(texts.task.labels))]


def _noise(tuning: Tuning, texts: int, steps: int) -> dict[str, float]:
    """What DP-SGD spent, and the noise that it took."""
    if not isinstance(tuning, Private):
        return {}
    spent = tuning.spending(texts)
    return {
        "tune_epsilon": spent.epsilon(steps),
        "tune_delta": spent.delta,
        "tune_noise": spent.noise_multiplier,
        "tune_rate": spent.rate,
    }


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
