"""Guesses at prompts scored: the place where a guess and the prompt that it is at meet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from experiments.trials.pursuit import Found
from smd_research import metrics
from smd_research.core.guess import Guess
from smd_research.data.prompts import Prompt
from smd_research.metrics.control import Answered, controls
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False)
class Attempt:
    """What an attack made of one view.

    Attributes:
        guess: its guess.
        seconds: how long it took.
        scores: metrics that the kind of attack adds, by name.
    """

    guess: Guess
    seconds: float
    scores: Mapping[str, float] = field(default_factory=dict)


def scored(attempts: Sequence[Attempt], prompts: Sequence[Prompt], bundle: Bundle) -> tuple[Found, ...]:
    """The attempts with their metrics, each beside its negative control.

    Args:
        attempts: one a prompt.
        prompts: those that were served. Of prompts and guesses alike only what the user wrote counts, and is left.
        bundle: for its tokenizer and special ids.
    """
    found = []
    attempts = [_own(a, p) for p, a in zip(prompts, attempts, strict=True)]
    prompts = [prompt.unwrapped for prompt in prompts]
    answers = [Answered(p.ids, a.guess, p.spans, p.source) for p, a in zip(prompts, attempts, strict=True)]
    beside = controls(answers, bundle.special_ids)
    for attempt, prompt, chance in zip(attempts, prompts, beside, strict=True):
        values = privacy(prompt, attempt.guess, bundle) | {"attack_s": attempt.seconds}
        found.append(Found(attempt.guess, {**values, **chance, **attempt.guess.facts, **attempt.scores}))
    return tuple(found)


def _own(attempt: Attempt, prompt: Prompt) -> Attempt:
    """What an attempt says of what the user wrote."""
    return replace(attempt, guess=attempt.guess.at(prompt.place)) if prompt.wrapper else attempt


def privacy(prompt: Prompt, guess: Guess, bundle: Bundle) -> dict[str, float]:
    """Privacy metrics of one guess."""
    truth, spans, special = prompt.ids, prompt.spans, bundle.special_ids
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
        "readable": metrics.readable(guess),
        "exhausted": float(guess.exhausted),
        "residual": math.nan if guess.residual is None else guess.residual,
        **metrics.streams(truth, guess, spans),
    }
