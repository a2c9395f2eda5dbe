"""What a tuned model is worth, and how much of the text that it was tuned on came back."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from smd_research.core.seeds import generator
from smd_research.metrics.card import Card
from smd_research.metrics.estimate import LEVEL, Estimate

_RESAMPLES = 2000


ACCURACY = Card(
    "accuracy", "accuracy", "utility", "", "higher", "", 1.0, "rate",
    "evaluation texts whose class is right; of next-token tuning, tokens",
)  # fmt: skip


def f1_macro(truth: Sequence[int], predicted: Sequence[int], classes: int) -> Estimate:
    """Mean over the classes that occur of the F1 score; percentile interval of a bootstrap over texts.

    Args:
        truth: class of each text.
        predicted: class that was told of each text.
        classes: number of classes.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64)), 1)
    n = int(confusion.sum())
    if not n:
        return Estimate(math.nan, n=0)
    present = confusion.sum(1) > 0
    drawn = generator(0, "bootstrap").multinomial(n, confusion.ravel() / n, size=_RESAMPLES)
    low, high = np.quantile(_f1(drawn.reshape(-1, classes, classes), present), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(_f1(confusion[None], present)[0]), float(low), float(high), n)


def _f1(confusion: NDArray[np.int64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Macro F1 of confusion matrices ``[n, classes, classes]`` over the classes that are ``present``."""
    right = np.einsum("ncc->nc", confusion)
    told = confusion.sum(1) + confusion.sum(2)
    found: NDArray[np.float64] = (2 * right / np.maximum(told, 1))[:, present].mean(1)
    return found


F1_MACRO = Card(
    "f1_macro", "F1, macro", "utility", "", "higher", "", 1.0, "linear",
    "mean F1 over classes; bootstrap interval over evaluation texts",
)  # fmt: skip


def running_share(hits: Sequence[int], counts: Sequence[int]) -> Estimate:
    """Hits over counts of all texts; the interval is that of the ratio estimator over texts (Student's t).

    Args:
        hits: of each text.
        counts: of each text; texts that count nothing are left out.

    Raises:
        ValueError: when the two do not match.
    """
    pairs = np.array([(h, c) for h, c in zip(hits, counts, strict=True) if c > 0], dtype=float)
    n = len(pairs)
    if n == 0:
        return Estimate(math.nan, n=0)
    found, of = pairs.T
    mean = float(found.sum() / of.sum())
    if n == 1:
        return Estimate(mean)
    error = math.sqrt(n / (n - 1) * float(((found - mean * of) ** 2).sum())) / float(of.sum())
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error
    return Estimate(mean, max(mean - reach, 0.0), min(mean + reach, 1.0), n)


READ = (
    Card.leak(
        "token_recovery", "private text recovered", "running tokens of the texts tuned on, special tokens left out",
        "share of the most frequent token",
    ),
    Card.leak(
        "id_recovery", "ids recovered", "cipher ids whose plain id is right, special ids left out", "1 / vocabulary"
    ),
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
)
"""What each phase took."""
