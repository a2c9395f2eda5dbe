"""From what was served and guessed to the numbers of a record; the only place where truth and guess meet."""

import math
from collections.abc import Sequence

from experiments.trials.attacking import Attempt, partner
from experiments.trials.observe import Observation, Served
from smd_research import metrics
from smd_research.boundary import Link
from smd_research.core.guess import Guess
from smd_research.metrics import Estimate
from smd_research.metrics.cost import MEGABYTE
from smd_research.models.bundle import Bundle
from smd_research.records import Item


def score(
    bundle: Bundle, observation: Observation, attempts: Sequence[Attempt] | None, link: Link
) -> tuple[dict[str, Estimate], list[Item]]:
    """Score every prompt.

    Args:
        bundle: for its tokenizer.
        observation: what was served and seen.
        attempts: one for each prompt, or None where nobody attacked.
        link: the modelled link.

    Returns:
        Estimates by metric name, over the prompts that were served, and one item each.
    """
    served = observation.served
    items = []
    for position, one in enumerate(served):
        values = {**one.utility, **one.facts, **_cost(one, link)}
        guess = None
        if attempts is not None:
            guess = attempts[position].guess
            values |= privacy(one, guess, bundle) | {"attack_s": attempts[position].seconds}
            values |= _control(position, served, attempts, bundle) | _special(attempts[position])
        items.append(_item(one, guess, values, bundle))
    return estimates(items, observation), items


def privacy(one: Served, guess: Guess, bundle: Bundle) -> dict[str, float]:
    """Privacy metrics of one guess."""
    truth, spans, special = one.prompt.ids, one.prompt.spans, bundle.special_ids
    guessed = bundle.decode([i for i in guess.ids if i >= 0])
    return {
        "token_accuracy": metrics.token_accuracy(truth, guess, special),
        "top5_accuracy": metrics.top5_accuracy(truth, guess, special),
        "exact_match": metrics.exact_match(truth, guess, special),
        "rouge_l": metrics.rouge_l(bundle.decode(truth), guessed),
        "edit_similarity": metrics.edit_similarity(truth, guess, special),
        "span_exact": metrics.span_exact(truth, guess, spans),
        "span_similarity": metrics.span_similarity(truth, guess, spans, bundle.decode),
        "attack_candidates": metrics.attack_candidates(guess),
        "certified": metrics.certified(guess),
        "exhausted": float(guess.exhausted),
        "residual": math.nan if guess.residual is None else guess.residual,
        **metrics.streams(truth, guess, spans),
    }


def _control(position: int, served: Sequence[Served], attempts: Sequence[Attempt], bundle: Bundle) -> dict[str, float]:
    """The negative control: the same attack on another prompt's view, scored against this prompt."""
    other = partner(position, [len(one.prompt.ids) for one in served])
    if other is None:
        return {"control_token_accuracy": math.nan, "control_span_exact": math.nan}
    prompt, guess = served[position].prompt, attempts[other].guess
    return {
        "control_token_accuracy": metrics.token_accuracy(prompt.ids, guess, bundle.special_ids),
        "control_span_exact": metrics.span_exact(prompt.ids, guess, prompt.spans),
    }


def _special(attempt: Attempt) -> dict[str, float]:
    """The hidden value of a template among its candidates, and whether an active attack was refused, where it was."""
    if attempt.refused is not None:
        return {"refused": float(attempt.refused)}
    if attempt.hidden is None:
        return {}
    truth, among = attempt.hidden.truth, len(attempt.hidden.template.candidates)
    return {
        "choice_top1": metrics.choice_found(attempt.guess, truth, 1),
        "choice_top5": metrics.choice_found(attempt.guess, truth, 5),
        "choice_chance": 1 / among,
        "choices": float(among),
        "control_choice_top1": metrics.choice_found(attempt.control, truth, 1) if attempt.control else math.nan,
    }


def _cost(one: Served, link: Link) -> dict[str, float]:
    ledger, timed = one.ledger, one.timed
    return {
        "ttft_ms": timed.ttft_s * 1e3,
        "tpot_ms": math.nan if timed.tpot_s is None else timed.tpot_s * 1e3,
        "tokens_per_s": len(timed.ids) / timed.total_s,
        "messages": ledger.messages,
        "rounds": ledger.rounds,
        "bytes_to_untrusted": ledger.bytes_to_untrusted,
        "bytes_to_trusted": ledger.bytes_to_trusted,
        "modelled_s": link.seconds(ledger) if link.name != "none" else math.nan,
        "kv_mb": sum(one.kv_bytes) / MEGABYTE,
        "kv_trusted_mb": one.kv_bytes[0] / MEGABYTE,
        "kv_untrusted_mb": one.kv_bytes[1] / MEGABYTE,
    }


def _item(one: Served, guess: Guess | None, values: dict[str, float], bundle: Bundle) -> Item:
    truth = token_texts(one.prompt.ids, bundle)
    guessed = token_texts(guess.ids, bundle) if guess else []
    ids = guess.ids if guess else ()
    return Item(one.prompt.id, values, [text or "" for text in truth], guessed, one.prompt.spans, one.prompt.ids, ids)


def token_texts(ids: Sequence[int], bundle: Bundle) -> list[str | None]:
    """What each token adds to the text before it (by itself, a token may lose its leading space); None abstains."""
    texts: list[str | None] = []
    before, kept = "", []
    for token in map(int, ids):
        if token < 0:
            texts.append(None)
            continue
        kept.append(token)
        text = bundle.decode(kept)
        # A character split over two tokens changes what stood there: then the token is shown by itself.
        texts.append(text[len(before) :] if text.startswith(before) else bundle.decode([token]))
        before = text
    return texts


def estimates(items: Sequence[Item], observation: Observation) -> dict[str, Estimate]:
    """Means with 95 % intervals of every metric that has a card and that at least one prompt defines."""
    columns: dict[str, list[float]] = {}
    for item in items:
        for name, value in item.metrics.items():
            columns.setdefault(name, []).append(value)
    found = {name: metrics.summarise(name, values) for name, values in columns.items() if name in metrics.CARDS}
    if "nll" in columns:
        counts = [int(item.metrics["nll_tokens"]) for item in items]
        found["perplexity"] = metrics.perplexity([item.metrics.get("nll", math.nan) for item in items], counts)
    found["refused_share"] = metrics.summarise("refused_share", [False] * len(items) + [True] * observation.refused)
    found["weights_mb"] = Estimate(observation.weight_bytes / MEGABYTE)
    found["resident_mb"] = Estimate(observation.resident_mb)
    return {name: estimate for name, estimate in found.items() if estimate.n}
