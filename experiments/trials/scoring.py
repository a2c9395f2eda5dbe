"""From what was seen and found to the numbers of a record."""

import math
from collections.abc import Mapping, Sequence

from experiments.trials.items import token_texts
from experiments.trials.pursuit import Findings, Found
from experiments.trials.seen import Seen, ServedRequest
from smd_research import metrics
from smd_research.boundary import Link
from smd_research.data.prompts import Prompt
from smd_research.metrics import Estimate
from smd_research.metrics.cost import MEGABYTE
from smd_research.models.bundle import Bundle
from smd_research.records import Item


def score(seen: Seen, findings: Findings, link: Link) -> tuple[dict[str, Estimate], list[Item]]:
    """Score a cell.

    Args:
        seen: of its life.
        findings: of its attack; nothing where nobody attacked.
        link: the modelled link.

    Returns:
        Estimates by metric name, and the items of the record: one a prompt, or one a text.
    """
    found: Sequence[Found | None] = findings.prompts or [None] * len(seen.truth.prompts)
    rows = zip(seen.truth.prompts, seen.utility.prompts, seen.cost.requests, found, strict=True)
    served = [
        item(prompt.unwrapped, {**utility, **request_cost(request, link)}, one, seen.truth.bundle)
        for prompt, utility, request, one in rows
    ]
    means = estimates(served) | dict(seen.utility.means) | dict(seen.cost.means)
    kept = {name: estimate for name, estimate in means.items() if estimate.n}
    return kept | dict(findings.metrics), [*served, *seen.utility.items, *findings.items]


def request_cost(request: ServedRequest, link: Link) -> dict[str, float]:
    """Time, traffic and memory of one prompt."""
    ledger, timed = request.ledger, request.timed
    return {
        "ttft_ms": timed.ttft_s * 1e3,
        "tpot_ms": math.nan if timed.tpot_s is None else timed.tpot_s * 1e3,
        "tokens_per_s": len(timed.ids) / timed.total_s,
        "messages": ledger.messages,
        "rounds": ledger.rounds,
        "bytes_to_untrusted": ledger.bytes_to_untrusted,
        "bytes_to_trusted": ledger.bytes_to_trusted,
        "modelled_s": link.seconds(ledger) if link.name != "none" else math.nan,
        "kv_mb": sum(request.kv_bytes) / MEGABYTE,
        "kv_trusted_mb": request.kv_bytes[0] / MEGABYTE,
        "kv_untrusted_mb": request.kv_bytes[1] / MEGABYTE,
    }


def item(prompt: Prompt, values: Mapping[str, float], found: Found | None, bundle: Bundle) -> Item:
    """The row of one prompt; without an attack there is no guess in it."""
    truth = [text or "" for text in token_texts(prompt.ids, bundle)]
    if found is None:
        return Item(prompt.id, dict(values), truth, [], prompt.spans, prompt.ids, (), prompt.source)
    guessed = token_texts(found.guess.ids, bundle)
    scores = {**values, **found.scores}
    return Item(prompt.id, scores, truth, guessed, prompt.spans, prompt.ids, found.guess.ids, prompt.source)


def estimates(items: Sequence[Item]) -> dict[str, Estimate]:
    """Means with 95 % intervals of every metric that has a card and that at least one prompt defines."""
    columns: dict[str, list[float]] = {}
    for one in items:
        for name, value in one.metrics.items():
            columns.setdefault(name, []).append(value)
    found = {name: metrics.summarise(name, values) for name, values in columns.items() if name in metrics.CARDS}
    if "nll" in columns:
        counts = [int(one.metrics["nll_tokens"]) for one in items]
        found["perplexity"] = metrics.perplexity([one.metrics.get("nll", math.nan) for one in items], counts)
    return found
