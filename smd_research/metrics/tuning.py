"""What a tuned model is worth, and how much of the text that it was tuned on came back."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smd_research.core.seeds import generator
from smd_research.metrics.card import Card
from smd_research.metrics.estimate import Estimate
from smd_research.metrics.interval import LEVEL, bounded_interval

_RESAMPLES = 2000


ACCURACY = Card(
    "accuracy", "accuracy", "utility", "", "higher", "", 1.0, "rate",
    "evaluation texts whose class is right; of next-token tuning, tokens",
)  # fmt: skip


def f1_macro(truth: Sequence[int], predicted: Sequence[int], classes: int) -> Estimate:
    """Mean over the classes that occur of the F1 score.

    The interval weighs the texts by Dirichlet(1, ..., 1) with one text more that is wrong, or right, at the lower and
    upper end, as :mod:`smd_research.metrics.interval` does for means: a perfect score is no certainty.

    Args:
        truth: class of each text.
        predicted: class that was told of each text.
        classes: number of classes.
    """
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64)), 1)
    n = int(confusion.sum())
    if not n:
        return Estimate(math.nan, n=0)
    mean = float(_f1(confusion[None], confusion.sum(1) > 0)[0])
    largest = int(confusion.sum(1).argmax())
    right, wrong = (np.zeros_like(confusion) for _ in range(2))
    right[largest, largest] = wrong[largest, (largest + 1) % classes] = 1
    tail = (1 - LEVEL) / 2
    low, high = (_f1_quantile(confusion + more, q) for more, q in ((wrong, tail), (right, 1 - tail)))
    return Estimate(mean, min(low, mean), max(high, mean), n)


def _f1_quantile(confusion: NDArray[np.float64], level: float) -> float:
    held = confusion.ravel() > 0
    drawn = np.zeros((_RESAMPLES, confusion.size))
    drawn[:, held] = generator(0, "f1").dirichlet(confusion.ravel()[held], _RESAMPLES)
    return float(np.quantile(_f1(drawn.reshape(-1, *confusion.shape), confusion.sum(1) > 0), level))


def _f1(confusion: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Macro F1 of confusion matrices ``[n, classes, classes]`` over the classes that are ``present``."""
    right = np.einsum("ncc->nc", confusion)
    told = confusion.sum(1) + confusion.sum(2)
    found: NDArray[np.float64] = np.divide(2 * right, told, out=np.zeros_like(right), where=told > 0)[:, present].mean(
        1
    )
    return found


F1_MACRO = Card(
    "f1_macro", "F1, macro", "utility", "", "higher", "", 1.0, "rate",
    "mean F1 over classes; interval over evaluation texts",
)  # fmt: skip


def running_share(hits: Sequence[int], counts: Sequence[int]) -> Estimate:
    """Hits over counts of all texts; each text is one value of the interval, whatever its length.

    Args:
        hits: of each text.
        counts: of each text; texts that count nothing are left out.

    Raises:
        ValueError: when the two do not match, or there are more hits than counts.
    """
    pairs = np.array([(h, c) for h, c in zip(hits, counts, strict=True) if c > 0], dtype=float)
    if not len(pairs):
        return Estimate(math.nan, n=0)
    found, of = pairs.T
    return Estimate(float(found.sum() / of.sum()), *bounded_interval(found, of), len(pairs))


READ = (
    Card.leak(
        "token_recovery", "private text recovered", "running tokens of the texts tuned on, special tokens left out",
        "share of the most frequent public token: control_token_recovery",
    ),
    Card.leak(
        "control_token_recovery", "private text, control", "tokens that are the most frequent one of public text",
        "itself",
    ),
    Card.leak(
        "id_recovery", "ids recovered", "cipher ids whose plain id is right, special ids left out",
        "1 / vocabulary: id_chance",
    ),
    Card.known("id_chance", "chance of an id", "1 / ids that are no special ones"),
    Card.leak(
        "attribute_accuracy", "class named from the code", "evaluation texts whose class a probe names undeciphered",
        "share of the largest class: attribute_chance",
    ),
    Card.leak("attribute_chance", "largest class", "share of the largest class of the evaluation texts", "itself"),
)  # fmt: skip
"""What was read of the private texts."""


def _cards_of_phase(phase: str, what: str) -> tuple[Card, ...]:
    return (
        Card.cost(f"{phase}_s", phase, "s", f"seconds of {what}; a resumed phase counts all its parts"),
        Card.cost(f"{phase}_bytes", f"{phase}, traffic", "B", f"payload bytes both ways of {what}"),
        Card.cost(f"{phase}_gflop", f"{phase}, work", "GFLOP", f"operations of {what}: estimate, attention left out"),
    )


PHASES = (
    *_cards_of_phase("key", "drawing the key"),
    *_cards_of_phase("implant", "implanting the key, recovery training included"),
    *_cards_of_phase("tune", "private tuning"),
    *_cards_of_phase("infer", "private inference on all evaluation texts"),
    Card.cost("tune_steps", "steps", "steps", "optimiser steps of private tuning"),
    Card.cost("tune_epsilon", "epsilon of training", "", "epsilon that DP-SGD spent on a text tuned on, an upper end"),
    Card.cost("tune_delta", "delta of training", "", "delta beside tune_epsilon"),
    Card.cost("tune_noise", "noise multiplier", "", "noise of DP-SGD on the sum of gradients, in units of their clip"),
    Card.cost("tune_rate", "sampling rate", "", "probability with which DP-SGD has a text in a step's sample"),
)
"""What each phase took."""
