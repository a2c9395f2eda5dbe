"""Every prompt served once more with an impostor in the honest provider's place, for an attack that is active.

Utility, traffic and time stay those of the honest run: they are what the defense costs, not what an attack costs.
"""

from collections.abc import Sequence

from experiments.trials.plan import Plan
from experiments.trials.pursuit import Impersonated, Shown
from experiments.trials.seen import Seen
from smd_research import metrics
from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.messages import Tokens
from smd_research.boundary.session import Impostor
from smd_research.core.errors import ProtocolError, RefusedError
from smd_research.core.progress import track
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Prepared
from smd_research.metrics import Estimate


def replay(plan: Plan, seen: Seen, impostor: Impostor, draws: Sequence[int] | None = None) -> Sequence[Impersonated]:
    """The prompts that were served, served by an impostor; ``draws`` as :func:`impersonated` takes them."""
    cell = plan.cell
    return impersonated(
        seen.prepared,
        seen.truth.prompts,
        impostor,
        max_new_tokens=cell.max_new_tokens,
        transport=cell.transport,
        threads=plan.threads,
        draws=draws,
    )


def impersonated(
    prepared: Prepared,
    prompts: Sequence[Prompt],
    impostor: Impostor,
    *,
    max_new_tokens: int,
    transport: str = "inproc",
    threads: int = 1,
    draws: Sequence[int] | None = None,
) -> list[Impersonated]:
    """Serve prompts, each with parties of its own: a refusal ends them.

    Args:
        prepared: what is deployed.
        prompts: what is asked.
        impostor: takes the honest provider's place.
        max_new_tokens: how many tokens to generate at most.
        transport: where the impostor lives.
        threads: torch threads of each party.
        draws: number of the randomness of each request; None counts them from 0.
    """
    found = []
    numbers = range(len(prompts)) if draws is None else draws
    for draw, prompt in zip(numbers, track(prompts, "impersonate"), strict=True):
        boundary = Boundary(transport, record=True, threads=threads, impostor=impostor)
        with prepared.deploy(boundary) as deployment:
            refused = False
            try:
                deployment.generate(prompt, max_new_tokens, draw)
            except (ProtocolError, RefusedError):
                refused = True
                sent = tuple(zip(*(m.ids.tolist() for m in boundary.view(deployment.shows).of(Tokens)), strict=True))
                boundary.publish(length=len(prompt.ids), outputs=sent, wrapper=prompt.wrapper)
            found.append(Impersonated(boundary.view(deployment.shows), refused))
    return found


def effect(honest: Sequence[AdversaryView], shown: Shown) -> dict[str, Estimate]:
    """What an active attack did to its victims: requests refused, and answers changed that were not.

    Args:
        honest: view of each request as an honest party served it.
        shown: the impostor's; nothing was done where nobody was impersonated.
    """
    if not shown.refused:
        return {}
    both = zip(honest, shown.views, shown.refused, strict=True)
    changed = [not stopped and one.outputs != other.outputs for one, other, stopped in both]
    shares = {"refused": shown.refused, "output_changed": changed}
    return {name: metrics.summarise(name, values) for name, values in shares.items()}
