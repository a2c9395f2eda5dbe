"""Privacy, utility and cost: one function a metric, each with a card, and means with 95 % intervals."""

from smd_research.metrics.card import Card
from smd_research.metrics.cards import CARDS, SCORES, summarise
from smd_research.metrics.cost import resident_mb
from smd_research.metrics.estimate import Estimate, Scale, aggregate, mean_by_token, perplexity
from smd_research.metrics.memory import Mapped, mapped, private_bytes, shared_once
from smd_research.metrics.paired import PairedMean, paired_mean
from smd_research.metrics.privacy import (
    attack_candidates,
    certified,
    choice_found,
    edit_similarity,
    exact_match,
    readable,
    rouge_l,
    span_exact,
    span_similarity,
    token_accuracy,
    top5_accuracy,
    top_k_accuracy,
)
from smd_research.metrics.restoration import recovery, weight_error
from smd_research.metrics.streams import JUDGES, streams
from smd_research.metrics.tuning import f1_macro, running_share
from smd_research.metrics.utility import greedy_equal, kl, logit_error, negative_log_likelihood

__all__ = [
    "CARDS",
    "JUDGES",
    "SCORES",
    "Card",
    "Estimate",
    "Mapped",
    "PairedMean",
    "Scale",
    "aggregate",
    "attack_candidates",
    "certified",
    "choice_found",
    "edit_similarity",
    "exact_match",
    "f1_macro",
    "greedy_equal",
    "kl",
    "logit_error",
    "mapped",
    "mean_by_token",
    "negative_log_likelihood",
    "paired_mean",
    "perplexity",
    "private_bytes",
    "readable",
    "recovery",
    "resident_mb",
    "rouge_l",
    "running_share",
    "shared_once",
    "span_exact",
    "span_similarity",
    "streams",
    "summarise",
    "token_accuracy",
    "top5_accuracy",
    "top_k_accuracy",
    "weight_error",
]
