"""A record scored anew from its items: what the way from per-prompt results to numbers says today.

Controls, secrets and intervals are functions of the items, so that they can be mended without a run. What no item
holds (a ranking beyond the first guess, texts tuned on beyond those shown) stays as it was scored.
"""

from collections.abc import Sequence
from dataclasses import replace

from experiments.trials.scoring import estimates
from smd_research import metrics
from smd_research.metrics.control import Answered, controls
from smd_research.records import NO_TEXTS, Item, Record, Status, items_frame, read_items


def obstacle(record: Record) -> str:
    """Why a record cannot be scored anew; empty where it can."""
    if record.status is not Status.OK:
        return "it has no scores"
    if not record.texts:
        return NO_TEXTS
    if record.cell.task is not None:
        return "its items show a part of the texts tuned on"
    if "special_ids" not in record.environment:
        return "it does not say which tokens no score counts: run its cell again with rerun=always"
    return ""


def rescored(record: Record) -> Record:
    """A record with the numbers that its items give today.

    Raises:
        ValueError: when it has an :func:`obstacle`.
    """
    if why := obstacle(record):
        raise ValueError(why)
    items = read_items(record.items)
    prompts = answered([one for one in items if one.truth_ids], record.environment["special_ids"])
    anew = {name: estimate for name, estimate in estimates(prompts).items() if estimate.n}
    shown = items_frame([*prompts, *(one for one in items if not one.truth_ids)])
    return replace(record, metrics={**record.metrics, **anew}, items=shown, scored=metrics.SCORES)


def answered(items: Sequence[Item], special_ids: Sequence[int]) -> list[Item]:
    """Items with what their ids say of the attack; as they are where nobody attacked."""
    special = frozenset(special_ids)
    if not any("control_token_accuracy" in one.metrics for one in items):
        return list(items)
    beside = controls([Answered(one.truth_ids, one.guess_ids, one.spans, one.source) for one in items], special)
    return [
        replace(one, metrics={**one.metrics, **_own(one, special), **chance})
        for one, chance in zip(items, beside, strict=True)
    ]


def _own(one: Item, special: frozenset[int]) -> dict[str, float]:
    """The scores of an answer that its first guesses decide."""
    return {
        "token_accuracy": metrics.token_accuracy(one.truth_ids, one.guess_ids, special),
        "exact_match": metrics.exact_match(one.truth_ids, one.guess_ids, special),
        "edit_similarity": metrics.edit_similarity(one.truth_ids, one.guess_ids, special),
        "span_exact": metrics.span_exact(one.truth_ids, one.guess_ids, one.spans),
    }
