"""Utility: how far the defended model's answer is from the plain model's, teacher-forced on the same tokens.

Logits are ``[T, V]`` tensors, one row a scored token. Everything is computed in double precision, on any device.
(torch is imported where it computes: whoever only reads records does not wait for it.)
"""

import math
from typing import TYPE_CHECKING

from smd_research.metrics.card import Card

if TYPE_CHECKING:
    from torch import Tensor


def negative_log_likelihood(logits: "Tensor", targets: "Tensor") -> float:
    """Summed negative log-likelihood in nats of ``targets`` ``[T]`` under ``logits`` ``[T, V]``.

    Give these sums with their token counts to :func:`smd_research.metrics.perplexity`.
    """
    from torch.nn.functional import cross_entropy

    return float(cross_entropy(logits.double(), targets, reduction="sum"))


PERPLEXITY = Card(
    "perplexity", "perplexity", "utility", "", "lower", "", None, "log",
    "of held-out text under the defended model, token-weighted, interval over prompts",
)  # fmt: skip


def kl(plain: "Tensor", defended: "Tensor") -> float:
    """Mean over positions of KL(plain || defended) between next-token distributions, in nats."""
    _check(plain, defended)
    if plain.shape[0] == 0:
        return math.nan
    from torch.nn.functional import kl_div

    p, q = plain.double().log_softmax(-1), defended.double().log_softmax(-1)
    # Rounding may leave -1e-17 where the two are equal; a divergence is never negative.
    return max(float(kl_div(q, p, log_target=True, reduction="batchmean")), 0.0)


KL = Card(
    "kl", "KL", "utility", "nats", "lower", "", 0.0, "positive",
    "KL(plain || defended) of next-token distributions, teacher-forced on the plain model's greedy continuation",
)  # fmt: skip


def greedy_equal(plain: "Tensor", defended: "Tensor", tie_gap: float = 0.0) -> float:
    """Share of positions at which both models would pick the same token greedily.

    Args:
        plain: logits of the unprotected model ``[T, V]``.
        defended: logits under the defense ``[T, V]``.
        tie_gap: two tokens whose plain logits are at most this far apart count as a tie.
    """
    _check(plain, defended)
    if plain.shape[0] == 0:
        return math.nan
    best = plain.double().max(-1).values
    chosen = plain.double().gather(-1, defended.argmax(-1, keepdim=True)).squeeze(-1)
    same = plain.argmax(-1) == defended.argmax(-1)
    return float((same | (best - chosen <= tie_gap)).double().mean())


GREEDY_EQUAL = Card(
    "greedy_equal", "greedy equal", "utility", "", "higher", "", 1.0, "rate",
    "positions with the same greedy token as the plain model",
)  # fmt: skip

REFUSED_SHARE = Card(
    "refused_share", "prompts refused", "utility", "", "lower", "", 0.0, "rate",
    "prompts that the defense would not serve; every other figure is over those that it served",
)  # fmt: skip


def logit_error(plain: "Tensor", defended: "Tensor") -> float:
    """Largest relative error over positions: ``max |defended - plain| / max |plain|``, both over the vocabulary."""
    _check(plain, defended)
    if plain.shape[0] == 0:
        return math.nan
    error = (defended.double() - plain.double()).abs().amax(-1)
    return float((error / plain.double().abs().amax(-1)).max())


LOGIT_ERROR = Card(
    "logit_error", "logit error", "utility", "", "lower", "", 0.0, "positive",
    "largest relative error of the logits against the plain model's",
)  # fmt: skip


def _check(plain: "Tensor", defended: "Tensor") -> None:
    if plain.shape != defended.shape or plain.dim() != 2:
        raise ValueError(f"logits must be [T, V] twice, not {tuple(plain.shape)} and {tuple(defended.shape)}")
