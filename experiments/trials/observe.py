"""Serve every prompt under a defense, twice: once recorded, for privacy and utility, once unrecorded, for time."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from experiments.progress import track
from smd_research import metrics
from smd_research.boundary import AdversaryView, Boundary, Ledger
from smd_research.boundary.remote import Remote
from smd_research.core.errors import RefusedError
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Deployment, Generation, Prepared
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import plain_greedy, plain_logits


@dataclass(frozen=True, repr=False)
class Plain:
    """What the unprotected model does with a prompt: the yardstick of utility.

    Attributes:
        ids: its greedy continuation.
        logits: teacher-forced on it, ``[len(ids), vocab]``.
    """

    ids: tuple[int, ...]
    logits: Tensor


@dataclass(frozen=True, repr=False)
class Served:
    """One prompt under a defense.

    Attributes:
        prompt: the secret; for metrics only.
        view: what the untrusted party saw; all that an attack gets.
        utility: per-prompt utility metrics, with ``nll`` and ``nll_tokens`` for perplexity.
        ledger: messages and bytes.
        timed: the unrecorded generation.
        kv_bytes: KV caches held by the trusted and the untrusted party at the end.
        facts: what the trusted party says of the request, by metric.
    """

    prompt: Prompt
    view: AdversaryView
    utility: dict[str, float]
    ledger: Ledger
    timed: Generation
    kv_bytes: tuple[int, int]
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Observation:
    """All prompts under a defense, and what is public about it.

    Attributes:
        served: the prompts.
        prepared: the defense, as it was deployed.
        weight_bytes: of all parties.
        resident_mb: memory of their processes.
        refused: how many prompts the defense would not serve; they are not among those served.
    """

    served: tuple[Served, ...]
    prepared: Prepared
    weight_bytes: int
    resident_mb: float
    refused: int = 0


def plain_answers(bundle: Bundle, prompts: Sequence[Prompt], max_new_tokens: int) -> tuple[Plain, ...]:
    """The unprotected model's greedy answer to every prompt."""
    answers = []
    for prompt in track(prompts, "plain model"):
        bundle.check_prompt(len(prompt.ids), max_new_tokens)
        ids = plain_greedy(bundle, prompt.ids, max_new_tokens)
        answers.append(Plain(ids, plain_logits(bundle, prompt.ids, ids)))
    return tuple(answers)


def observe(
    prepared: Prepared,
    prompts: Sequence[Prompt],
    plain: Sequence[Plain],
    *,
    max_new_tokens: int,
    transport: str,
    threads: int,
    remote: Remote | None = None,
) -> Observation:
    """Deploy a defense and serve every prompt that it does not refuse.

    A prompt is sent several times (timed, recorded, scored); one that is refused in any of them counts as refused.

    Raises:
        RefusedError: when it refuses every prompt.
        LabError: for a prompt that nobody could serve, or whatever stops the untrusted party.
    """
    unrecorded = Boundary(transport, record=False, threads=threads, remote=remote)
    timed = _time(prepared, prompts, max_new_tokens, unrecorded)
    boundary = Boundary(transport, record=True, threads=threads, remote=remote)
    served = []
    with prepared.deploy(boundary) as deployment:
        for prompt, answer, generation in zip(track(prompts, "record"), plain, timed, strict=True):
            if generation is not None:
                with suppress(RefusedError):
                    served.append(_record(deployment, boundary, prompt, answer, generation, max_new_tokens))
        if not served:
            raise RefusedError(f"each of {len(prompts)} prompts was refused in one request or another: none to score")
        return Observation(
            served=tuple(served),
            prepared=prepared,
            weight_bytes=deployment.memory().weights,
            resident_mb=sum(metrics.resident_mb(pid) for pid in boundary.pids),
            refused=len(prompts) - len(served),
        )


def _time(
    prepared: Prepared, prompts: Sequence[Prompt], max_new_tokens: int, boundary: Boundary
) -> list[Generation | None]:
    """The unrecorded generation of each prompt, None where it is refused.

    Raises:
        RefusedError: when all are.
    """
    with prepared.deploy(boundary) as deployment:
        _warm_up(deployment, prompts, max_new_tokens)
        timed: list[Generation | None] = []
        for prompt in track(prompts, "time"):
            timed.append(None)
            with suppress(RefusedError):
                timed[-1] = deployment.generate(prompt, max_new_tokens)
        return timed


def _warm_up(deployment: Deployment, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    """Serve the first prompt that is not refused; not counted.

    Raises:
        RefusedError: when all are, with the reason of the last.
    """
    for prompt in prompts:
        try:
            deployment.generate(prompt, max_new_tokens)
        except RefusedError as error:
            reason = error
        else:
            return
    raise RefusedError(f"the defense refuses all {len(prompts)} prompts, the last one so: {reason}")


def _record(
    deployment: Deployment, boundary: Boundary, prompt: Prompt, plain: Plain, timed: Generation, max_new_tokens: int
) -> Served:
    """Serve one prompt with the recorder on.

    Raises:
        RefusedError: when the defense will not serve it.
    """
    deployment.generate(prompt, max_new_tokens)
    view, ledger, held = boundary.view(deployment.shows), boundary.ledger, deployment.memory()
    facts = dict(deployment.facts)
    utility = _utility(deployment, prompt, plain)
    return Served(prompt, view, utility, ledger, timed, (held.kv_trusted, held.kv_untrusted), facts)


def _utility(deployment: Deployment, prompt: Prompt, plain: Plain) -> dict[str, float]:
    """Teacher-forced comparison with the unprotected model, and the likelihood of held-out text."""
    defended = deployment.score(prompt.ids, plain.ids)
    values = {
        "kl": metrics.kl(plain.logits, defended),
        "greedy_equal": metrics.greedy_equal(plain.logits, defended),
        "logit_error": metrics.logit_error(plain.logits, defended),
        "scored_tokens": float(len(plain.ids)),
        "nll_tokens": float(len(prompt.continuation)),
    }
    if prompt.continuation:
        logits = deployment.score(prompt.ids, prompt.continuation)
        values["nll"] = metrics.negative_log_likelihood(logits, torch.tensor(prompt.continuation))
    return values
