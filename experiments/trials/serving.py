"""The life of a defense that serves prompts: once unrecorded, for time, and once recorded, for privacy and utility."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from experiments.trials.pairing import remote
from experiments.trials.plain import Plain
from experiments.trials.plan import Plan
from experiments.trials.seen import Cost, Seen, ServedRequest, Truth, Utility
from experiments.trials.workbench import Workbench
from smd_research import metrics
from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.remote import Remote
from smd_research.core.errors import RefusedError
from smd_research.core.observable import Observable
from smd_research.core.progress import track
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Defense, Deployment, Generation, Prepared, PublicText
from smd_research.metrics import Estimate
from smd_research.metrics.cost import MEGABYTE
from smd_research.models.bundle import Bundle


def makes(plan: Plan) -> Mapping[str, Any]:
    """The part of a cell's identity, and of how it is run, that makes what is seen, whoever attacks."""
    cell = plan.cell
    parts = {**cell.identity(), "attack": None, "link": None, "versions": cell.versions.get("defense")}
    return {**parts, "device": cell.device, "threads": plan.threads}


def shows(defense: Defense, plan: Plan) -> frozenset[Observable]:
    """What the untrusted party sees of prompts."""
    return defense.shows


def prepare(plan: Plan, workbench: Workbench, defense: Defense) -> Prepared:
    """What the defense makes of the cell's model."""
    return defense.prepare(workbench.bundle(plan), PublicText(workbench.corpus(plan)), plan.cell.seed)


@dataclass(frozen=True, repr=False)
class Served:
    """One prompt as it was served with the recorder on, and what it took.

    Attributes:
        prompt: what was asked.
        ids: token ids of the answer.
        view: what the untrusted party saw.
        utility: the answer beside the unprotected model's, and what the defense says of the request, by metric.
        request: what it took.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    view: AdversaryView
    utility: Mapping[str, float]
    request: ServedRequest


def live(plan: Plan, workbench: Workbench, prepared: Prepared) -> Seen:
    """Serve the cell's prompts."""
    prompts, plain = workbench.staged(plan, prepared)
    return serve(prepared, prompts, plain, plan.cell.max_new_tokens, opening_of(plan, prepared.bundle))


@dataclass(frozen=True)
class Opening:
    """Where the untrusted party lives: what a boundary is opened with."""

    transport: str = "inproc"
    threads: int = 1
    remote: Remote | None = None

    def boundary(self, *, record: bool) -> Boundary:
        """A boundary to it."""
        return Boundary(self.transport, record=record, threads=self.threads, remote=self.remote)


def opening_of(plan: Plan, bundle: Bundle) -> Opening:
    """Where the untrusted party of a cell lives.

    Args:
        plan: of the cell.
        bundle: its model, which a party on another host must have too.
    """
    return Opening(plan.cell.transport, plan.threads, remote(plan, bundle))


def serve(
    prepared: Prepared, prompts: Sequence[Prompt], plain: Sequence[Plain], max_new_tokens: int, place: Opening
) -> Seen:
    """Deploy a defense and serve every prompt that it does not refuse.

    A prompt is sent several times (timed, recorded, scored), each time under the same draw of the defense's randomness;
    one that is refused in any of them counts as refused.

    Args:
        prepared: what is deployed.
        prompts: what is asked.
        plain: the unprotected model's answer to each.
        max_new_tokens: how many tokens to generate at most.
        place: where the untrusted party lives.

    Raises:
        RefusedError: when it refuses every prompt.
        LabError: for a prompt that nobody could serve, or whatever stops the untrusted party.
    """
    timed = _time(prepared, prompts, max_new_tokens, place.boundary(record=False))
    boundary, served = place.boundary(record=True), list[Served]()
    with prepared.deploy(boundary) as deployment:
        for draw, (prompt, answer, generation) in enumerate(zip(track(prompts, "record"), plain, timed, strict=True)):
            if generation is not None:
                with suppress(RefusedError):
                    served.append(serve_one(deployment, prompt, answer, max_new_tokens, draw, generation))
        if not served:
            raise RefusedError(f"each of {len(prompts)} prompts was refused in one request or another: none to score")
        held = {
            "weights_mb": Estimate(deployment.memory().weights / MEGABYTE),
            "resident_mb": Estimate(sum(metrics.resident_mb(pid) for pid in boundary.pids)),
        }
    refused = metrics.summarise("refused_share", [False] * len(served) + [True] * (len(prompts) - len(served)))
    return Seen(
        prepared,
        prepared.public,
        None,
        tuple(one.view for one in served),
        Truth(prepared.bundle, tuple(one.prompt for one in served)),
        Utility(tuple(one.utility for one in served), means={"refused_share": refused}),
        Cost(tuple(one.request for one in served), held),
    )


def _time(
    prepared: Prepared, prompts: Sequence[Prompt], max_new_tokens: int, boundary: Boundary
) -> list[Generation | None]:
    """The unrecorded generation of each prompt, None where it is refused.

    Raises:
        RefusedError: when all are, with the reason of the last.
    """
    timed: list[Generation | None] = []
    with prepared.deploy(boundary) as deployment:
        _warm_up(deployment, prompts, max_new_tokens)
        for draw, prompt in enumerate(track(prompts, "time")):
            try:
                timed.append(deployment.generate(prompt, max_new_tokens, draw))
            except RefusedError as error:
                reason = error
                timed.append(None)
    if not any(timed):
        raise RefusedError(f"the defense refuses all {len(prompts)} prompts, the last one so: {reason}")
    return timed


def _warm_up(deployment: Deployment, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    """Serve the first prompt that is not refused; not counted."""
    for draw, prompt in enumerate(prompts):
        with suppress(RefusedError):
            deployment.warm_up(prompt, max_new_tokens, draw)
            return


def serve_one(
    deployment: Deployment,
    prompt: Prompt,
    plain: Plain,
    max_new_tokens: int,
    draw: int,
    timed: Generation | None = None,
) -> Served:
    """Serve one prompt with the recorder on, and score it.

    Args:
        deployment: two live parties whose boundary records.
        prompt: what is asked.
        plain: the unprotected model's answer.
        max_new_tokens: how many tokens to generate at most.
        draw: number of the randomness that it takes, the same for every pass.
        timed: the unrecorded generation under that draw; None where there was none, and the recorded one's times count.

    Raises:
        RefusedError: when the defense will not serve it.
    """
    generation = deployment.generate(prompt, max_new_tokens, draw)
    boundary, timed = deployment.boundary, timed or generation
    view, ledger, held = boundary.view(deployment.shows), boundary.ledger, deployment.memory()
    facts = dict(deployment.facts)
    utility = _utility(deployment, prompt, plain)
    request = ServedRequest(ledger, timed, (held.kv_trusted, held.kv_untrusted))
    return Served(prompt, generation.ids, view, {**utility, **facts, **timed.waits}, request)


def _utility(deployment: Deployment, prompt: Prompt, plain: Plain) -> dict[str, float]:
    """Teacher-forced comparison with the unprotected model, and the likelihood of held-out text."""
    draw = deployment.draw
    defended = deployment.score(prompt.ids, plain.ids, draw, prompt.wrapper)
    values = {
        "kl": metrics.kl(plain.logits, defended),
        "greedy_equal": metrics.greedy_equal(plain.logits, defended),
        "logit_error": metrics.logit_error(plain.logits, defended),
        "scored_tokens": float(len(plain.ids)),
        "nll_tokens": float(len(prompt.continuation)),
    }
    if prompt.continuation:
        logits = deployment.score(prompt.ids, prompt.continuation, draw, prompt.wrapper)
        values["nll"] = metrics.negative_log_likelihood(logits, torch.tensor(prompt.continuation))
    return values
