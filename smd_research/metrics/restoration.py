"""How much of a model came back: losses on held-out text, and what an attack recovered beside two yardsticks.

Likelihoods are summed and negative, in nats, one a document, of the same documents throughout (torch is imported where
it computes).
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy

from smd_research.metrics.card import Card
from smd_research.metrics.estimate import Estimate
from smd_research.metrics.interval import LEVEL

if TYPE_CHECKING:
    from torch import Tensor


def _loss_card(name: str, label: str, of: str) -> Card:
    said = f"mean loss a token of {of}, on held-out documents; interval over documents"
    return Card(name, label, "privacy", "nats", "higher", "exposed_loss", None, "positive", said)


LOSSES = (
    _loss_card("original_loss", "loss, original", "the true model"),
    _loss_card("exposed_loss", "loss, exposed", "the exposed part by itself"),
    _loss_card("restored_loss", "loss, restored", "the restored model"),
    _loss_card("scratch_loss", "loss, from scratch", "a new model trained on the same data for as many steps"),
    _loss_card("public_loss", "loss, public", "the public relative that the attack drew on"),
    Card(
        "restored_perplexity", "perplexity, restored", "privacy", "", "higher", "", None, "log",
        "of the restored model, on held-out documents",
    ),
)  # fmt: skip


def recovery(reference: Sequence[float], attack: Sequence[float], original: Sequence[float]) -> Estimate:
    """Share of the way from a reference to the original model that an attack went.

    ``(L_reference - L_attack) / (L_reference - L_original)``. With the exposed part as reference it flatters an attack;
    with a model trained from scratch on equal data and steps, a value at or below zero means that nothing was stolen.

    Args:
        reference: of each document.
        attack: of each document.
        original: of each document.

    Returns:
        The ratio of the two sums, with the interval of the ratio estimator over documents; NaN with ``n = 0`` where the
        reference is no worse than the original, so that there is no way to go.
    """
    gone = np.subtract(reference, attack)
    whole = np.subtract(reference, original)
    n = len(whole)
    # Equal models differ by rounding: a way of that length is none.
    if n == 0 or whole.sum() <= 1e-6 * np.sum(original):
        return Estimate(math.nan, n=0)
    share = float(gone.sum() / whole.sum())
    if n == 1:
        return Estimate(share)
    spread = math.sqrt(n / (n - 1) * float(((gone - share * whole) ** 2).sum())) / float(whole.sum())
    reach = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * spread
    return Estimate(share, share - reach, share + reach, n)


def _recovery_card(name: str, label: str, better_than: str, of: str) -> Card:
    said = f"share of the way from {better_than} to the original that the attack went, in loss{of}"
    return Card(name, label, "privacy", "", "lower", "0", 1.0, "linear", said)


RECOVERIES = (
    _recovery_card("rec_exposed", "recovered", "the exposed part", ": flattering to the attack"),
    _recovery_card(
        "rec_scratch", "recovered beyond scratch", "a model trained from scratch",
        ", at equal data and steps: nothing was stolen at or below 0",
    ),
    _recovery_card("private_gain", "private gain recovered", "the public relative", ""),
    Card.leak("restored_top1", "top-1 as original", "tokens at which the restored model is as the original", "none"),
)  # fmt: skip


def weight_error(matrices: Iterable[tuple["Tensor", "Tensor", "Tensor"]]) -> float:
    """Relative error of the secret part over all protected matrices: 0 is exact, 1 what leaving it out gives.

    ``||W_guess - W|| / ||W - W_exposed||``, Frobenius norms over all matrices together.

    Args:
        matrices: guess, truth and exposed part of each, of one shape.

    Returns:
        The error; NaN where nothing is secret.
    """
    wrong = secret = 0.0
    for guess, truth, exposed in matrices:
        wrong += float((guess.double() - truth.double()).square().sum())
        secret += float((truth.double() - exposed.double()).square().sum())
    return math.sqrt(wrong / secret) if secret else math.nan


WEIGHT_ERROR = Card(
    "weight_error", "error of the secret part", "privacy", "", "higher", "1", None, "positive",
    "|W_guess - W| / |W - W_exposed|, Frobenius norms over all protected matrices: 0 is exact",
)  # fmt: skip

TRAINING = tuple(
    Card(name, label, "privacy", unit, "higher", "", None, "positive", said)
    for name, label, unit, said in (
        ("trainable_parameters", "trained", "parameters", "parameters that the attack trained"),
        ("attack_tokens", "attack data", "tokens", "public text that the attack had"),
        ("attack_steps", "attack steps", "steps", "steps that the attack took, its search left out"),
        ("learning_rate", "learning rate", "", "that the attack chose"),
        ("validation_loss", "loss, attacker's own", "nats", "smallest loss on the rows that the attack held back"),
    )
)
"""What an attack that trains spent."""
