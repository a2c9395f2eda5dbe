"""What each metric means: unit, direction, chance level and ceiling."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from smd_research.metrics.estimate import Estimate, Scale, aggregate
from smd_research.metrics.streams import JUDGES

_CONTROL = "the same attack on another prompt's view"
_PRIOR = "the prior-only and random attacks"


@dataclass(frozen=True)
class Card:
    """How to read a metric.

    Attributes:
        name: as it stands in records.
        label: as it stands in tables and figures.
        kind: privacy, utility or cost.
        unit: of the value; empty for a share.
        better: direction as seen by the user who is to be protected: a recovered token is bad.
        chance: what an attack that learned nothing scores, and how it is measured; empty where it has no meaning.
        ceiling: the best value there can be, or the value of the unprotected model; None when unbounded.
        scale: how per-prompt values are averaged.
        description: what is measured.
    """

    name: str
    label: str
    kind: Literal["privacy", "utility", "cost"]
    unit: str
    better: Literal["lower", "higher"]
    chance: str
    ceiling: float | None
    scale: Scale
    description: str

    @property
    def heading(self) -> str:
        """Label and unit, as an axis or a column wants them."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _share(name: str, label: str, description: str, chance: str = _CONTROL) -> Card:
    return Card(name, label, "privacy", "", "lower", chance, 1.0, "rate", description)


def _cost(
    name: str,
    label: str,
    unit: str,
    description: str,
    better: Literal["lower", "higher"] = "lower",
    scale: Scale = "positive",
) -> Card:
    return Card(name, label, "cost", unit, better, "", None, scale, description)


def _streams() -> Iterator[Card]:
    """Picking the real stream: overall, and by each line of evidence."""
    chance = "1 / number of streams: stream_chance"
    yield _share("stream_found", "real stream found", "prompts whose real stream the attack picked", chance)
    yield _share("stream_chance", "chance", "1 / number of streams", "itself")
    yield _share("real_stream_read", "real stream read", "prompts whose secrets the attack read in some stream", "none")
    yield Card(
        "stream_advantage",
        "advantage",
        "privacy",
        "",
        "lower",
        "0",
        1.0,
        "linear",
        "real streams found minus 1 / number of streams",
    )
    yield Card(
        "requests_needed",
        "requests needed",
        "privacy",
        "requests",
        "higher",
        "never",
        None,
        "positive",
        "requests after which intersection was 95 % sure of a stream, over prompts where it was, and right",
    )
    for judge, evidence in JUDGES.items():
        name = judge.replace("_", " ")
        yield _share(f"found_{judge}", f"found by {name}", f"real streams picked by {evidence}", chance)
        yield _share(
            f"max_posterior_{judge}",
            f"max posterior, {name}",
            f"largest probability of being real by {evidence}: what picking by it can hope for",
            chance,
        )
        yield _share(
            f"eps_eff_{judge}", f"eps_eff, {name}", f"max posterior minus 1 / number of streams, by {evidence}", "0"
        )


def _obfuscation() -> Iterator[Card]:
    """What a vault that hides a prompt among virtual ones says of its fakes."""
    yield Card(
        "eps_eff",
        "eps_eff",
        "privacy",
        "",
        "lower",
        "0",
        1.0,
        "linear",
        "largest posterior of a stream under the sampler's own model and law, minus 1 / number of streams",
    )
    yield _share(
        "nominal_bound", "claimed bound", "success that is claimed to be the most: 1 / streams + epsilon", "itself"
    )
    yield Card(
        "widened_epsilon",
        "widened epsilon",
        "privacy",
        "",
        "lower",
        "",
        None,
        "linear",
        "largest epsilon that a secret's bins were widened to, to find enough fakes",
    )
    yield _cost("sampling_ms", "sampling", "ms", "drawing the fakes of a prompt, part of the time to its first token")


def _restoration() -> Iterator[Card]:
    """What came back of a model whose weights are the secret."""

    def loss(name: str, label: str, of: str) -> Card:
        return Card(
            name, label, "privacy", "nats", "higher", "exposed_loss", None, "positive",
            f"mean loss a token of {of}, on held-out documents; interval over documents",
        )  # fmt: skip

    def share(name: str, label: str, better_than: str, of: str) -> Card:
        return Card(
            name, label, "privacy", "", "lower", "0", 1.0, "linear",
            f"share of the way from {better_than} to the original that the attack went, in loss{of}",
        )  # fmt: skip

    yield loss("original_loss", "loss, original", "the true model")
    yield loss("exposed_loss", "loss, exposed", "the exposed part by itself")
    yield loss("restored_loss", "loss, restored", "the restored model")
    yield loss("scratch_loss", "loss, from scratch", "a new model trained on the same data for as many steps")
    yield loss("public_loss", "loss, public", "the public relative that the attack drew on")
    yield Card(
        "restored_perplexity", "perplexity, restored", "privacy", "", "higher", "", None, "log",
        "of the restored model, on held-out documents",
    )  # fmt: skip
    yield share("rec_exposed", "recovered", "the exposed part", ": flattering to the attack")
    yield share(
        "rec_scratch", "recovered beyond scratch", "a model trained from scratch",
        ", at equal data and steps: nothing was stolen at or below 0",
    )  # fmt: skip
    yield share("private_gain", "private gain recovered", "the public relative", "")
    yield _share("restored_top1", "top-1 as original", "tokens at which the restored model is as the original", "none")
    yield Card(
        "weight_error", "error of the secret part", "privacy", "", "higher", "1", None, "positive",
        "|W_guess - W| / |W - W_exposed|, Frobenius norms over all protected matrices: 0 is exact",
    )  # fmt: skip
    for name, label, unit, text in (
        ("trainable_parameters", "trained", "parameters", "parameters that the attack trained"),
        ("attack_tokens", "attack data", "tokens", "public text that the attack had"),
        ("attack_steps", "attack steps", "steps", "steps that the attack took, its search left out"),
        ("learning_rate", "learning rate", "", "that the attack chose"),
        ("validation_loss", "loss, attacker's own", "nats", "smallest loss on the rows that the attack held back"),
    ):
        yield Card(name, label, "privacy", unit, "higher", "", None, "positive", text)


def _exposure() -> Iterator[Card]:
    """What the exposed part of the weights gives away before anybody mends it, and what keeping the rest costs."""

    def share(name: str, label: str, text: str) -> Card:
        return Card(name, label, "cost", "", "lower", "", 1.0, "linear", f"{text}; closed form")

    yield Card(
        "exposed_increase", "loss above original", "privacy", "nats", "higher", "0", None, "linear",
        "mean loss a token of the exposed part minus that of the true model, on held-out documents",
    )  # fmt: skip
    yield Card(
        "increase_per_parameter", "loss per secret parameter", "privacy", "nats per million", "higher", "0", None,
        "linear", "loss above the original's for each million secret parameters",
    )  # fmt: skip
    for name, label, of in (
        ("hidden_overlap", "directions told", "all matrices"),
        ("hidden_overlap_square", "directions told, square", "square matrices"),
        ("hidden_overlap_oblong", "directions told, oblong", "the short side of other matrices"),
    ):
        yield _share(
            name, label, f"overlap of secret singular directions with those the stored weights do least in, {of}",
            "k / width",
        )  # fmt: skip
    yield _cost("secret_parameters", "secret parameters", "parameters", "sum of k (m + n) over all linear layers")
    yield share("secret_share", "secret share", "secret parameters over those of all linear layers")
    yield share("trusted_flops", "trusted FLOPs", "online FLOPs of the trusted side over those of both, a token")
    yield share("secret_flops", "secret FLOPs", "FLOPs of the secret parts over those of both sides, a token")
    yield share("attention_flops", "attention FLOPs", "FLOPs of attention products over those of both sides, a token")
    yield share("protocol_flops", "masking FLOPs", "FLOPs of masks and checks over those of both sides, a token")


def _leaks() -> Iterator[Card]:
    """What attacks on a weight decomposition say of themselves besides the weights that they restore."""
    for form, words in (("tall", "with more rows than columns"), ("square", "square"), ("wide", "with more columns")):
        yield Card(
            f"weight_error_{form}", f"error, {form}", "privacy", "", "higher", "1", None, "positive",
            f"error of the secret part over the protected matrices that are {words}",
        )  # fmt: skip
    yield _share("output_changed", "changed unnoticed", "tampered requests with another answer, not refused", "0")
    yield _share("rows_sharing_masks", "masks used twice", "masked rows whose mask the attack finds twice", "0")
    yield _share("signal_share", "not the mask", "power of masked inputs that is not the mask's, over products", "0")
    yield _share("signal_share_worst", "not the mask, worst", "the same, of the product that shows most", "0")
    yield _share(
        "head_overlap", "head found", "overlap of the space of the logits with that of the head", "width / vocabulary"
    )
    for name, label, unit, text in (
        ("pairs_seen", "pairs seen", "pairs", "different plaintext pairs of the product that showed fewest"),
        ("pairs_used", "pairs used", "pairs", "pairs of each product that the attack used"),
        ("tampered_replies", "tampered replies", "replies", "replies that the device tampered with, a request"),
        ("comparisons_read", "comparisons read", "comparisons", "hidden logits compared, a request"),
        ("width_found", "width found", "", "rank of the logits"),
        ("logit_vectors", "logit vectors", "", "logit vectors that the attack had"),
    ):
        yield Card(name, label, "privacy", unit, "lower", "", None, "positive", text)
    yield Card(
        "hidden_bits", "bits that hide", "privacy", "bits", "higher", "bits of the prime", None, "positive",
        "what is left to hide a masked number once another of its mask is known: of the largest difference found",
    )  # fmt: skip


def _tuning() -> Iterator[Card]:
    """Private tuning and inference: what the tuned model is worth, what was read of its texts, what each phase took."""
    for name, label, scale, text in (
        ("accuracy", "accuracy", "rate", "evaluation texts whose class is right; of next-token tuning, tokens"),
        ("f1_macro", "F1, macro", "linear", "mean F1 over classes; bootstrap interval over evaluation texts"),
    ):
        yield Card(name, label, "utility", "", "higher", "", 1.0, scale, text)  # type: ignore[arg-type]
    yield _share(
        "token_recovery", "private text recovered", "running tokens of the texts tuned on, special tokens left out",
        "share of the most frequent token",
    )  # fmt: skip
    yield _share(
        "id_recovery", "ids recovered", "cipher ids whose plain id is right, special ids left out", "1 / vocabulary"
    )
    yield _share(
        "attribute_accuracy", "class named from the code", "evaluation texts whose class a probe names undeciphered",
        "share of the largest class: attribute_chance",
    )  # fmt: skip
    yield _share("attribute_chance", "largest class", "share of the largest class of the evaluation texts", "itself")
    phases = {
        "key": "drawing the key",
        "implant": "implanting the key, recovery training included",
        "tune": "private tuning",
        "infer": "private inference on all evaluation texts",
    }
    for phase, what in phases.items():
        yield _cost(f"{phase}_s", f"{phase}", "s", f"seconds of {what}; a resumed phase counts all its parts")
        yield _cost(f"{phase}_bytes", f"{phase}, traffic", "B", f"payload bytes both ways of {what}")
        yield _cost(f"{phase}_gflop", f"{phase}, work", "GFLOP", f"operations of {what}: estimate, attention left out")
    yield _cost("tune_steps", "steps", "steps", "optimiser steps of private tuning")


_ALL = (
    _share("token_accuracy", "tokens recovered", "positions whose token is right, special tokens left out"),
    _share("top5_accuracy", "tokens in top 5", "positions whose token is among the five best candidates"),
    _share("exact_match", "whole prompts", "prompts recovered token for token"),
    _share("rouge_l", "ROUGE-L", "longest common subsequence of words, F1"),
    _share("edit_similarity", "edit similarity", "1 - Levenshtein distance / longer length, over tokens"),
    _share("span_exact", "secrets recovered", "secret spans recovered token for token; mean over prompts with secrets"),
    _share("span_similarity", "secret similarity", "character edit similarity of secret spans"),
    _share("control_token_accuracy", "tokens, control", f"token_accuracy of {_CONTROL}: the chance level", _PRIOR),
    _share("control_span_exact", "secrets, control", f"span_exact of {_CONTROL}: the chance level", _PRIOR),
    _share(
        "choice_top1", "hidden value found", "hidden values that the attack ranks first of the register",
        "1 / length of the register: choice_chance",
    ),
    _share(
        "choice_top5", "hidden value in top 5", "hidden values among the five best of the register",
        "5 / length of the register",
    ),
    Card(
        "refused", "refused", "privacy", "", "higher", "", 1.0, "rate",
        "requests of an active attack that the trusted party noticed and ended",
    ),
    _share("choice_chance", "chance of a value", "1 / number of candidates that fit into the gap", "itself"),
    Card(
        "choices", "register", "privacy", "candidates", "higher", "", None, "positive",
        "candidates that fit into the gap, the hidden value included",
    ),
    _share("control_choice_top1", "hidden value, control", f"choice_top1 of {_CONTROL}: the chance level", _PRIOR),
    Card(
        "certified", "certified", "privacy", "", "lower", "", 1.0, "rate",
        "guesses the attack proved right by itself, among those it could check",
    ),
    Card(
        "attack_candidates", "candidates", "privacy", "candidates", "higher", "", None, "positive",
        "candidates the attack evaluated for a prompt",
    ),
    *_streams(),
    *_obfuscation(),
    *_restoration(),
    *_exposure(),
    *_leaks(),
    *_tuning(),
    Card("attack_s", "attack time", "privacy", "s", "higher", "", None, "positive", "seconds the attack took a prompt"),
    Card(
        "perplexity", "perplexity", "utility", "", "lower", "", None, "log",
        "of held-out text under the defended model, token-weighted, interval over prompts",
    ),
    Card(
        "kl", "KL", "utility", "nats", "lower", "", 0.0, "positive",
        "KL(plain || defended) of next-token distributions, teacher-forced on the plain model's greedy continuation",
    ),
    Card(
        "greedy_equal", "greedy equal", "utility", "", "higher", "", 1.0, "rate",
        "positions with the same greedy token as the plain model",
    ),
    Card(
        "refused_share", "prompts refused", "utility", "", "lower", "", 0.0, "rate",
        "prompts that the defense would not serve; every other figure is over those that it served",
    ),
    Card(
        "logit_error", "logit error", "utility", "", "lower", "", 0.0, "positive",
        "largest relative error of the logits against the plain model's",
    ),
    _cost("ttft_ms", "first token", "ms", "time to first token"),
    _cost("tpot_ms", "per token", "ms", "time per output token after the first"),
    _cost("tokens_per_s", "tokens/s", "1/s", "tokens generated per second", better="higher"),
    _cost("messages", "messages", "", "messages across the boundary, both ways, a prompt"),
    _cost("rounds", "rounds", "", "request-reply exchanges a prompt"),
    _cost("bytes_to_untrusted", "to provider", "B", "payload bytes to the untrusted party, a prompt"),
    _cost("bytes_to_trusted", "to user", "B", "payload bytes to the trusted party, a prompt"),
    _cost("offline_s", "offline", "s", "time spent ahead of a prompt on its masks: its share, by operations, of all"),
    _cost("offline_gflop", "offline work", "GFLOP", "operations spent ahead of a prompt on its masks"),
    _cost("masks_mb", "masks", "MB", "cancellation masks that a prompt used up, 8 bytes a residue"),
    _cost("bank_mb", "mask bank", "MB", "cancellation masks held when a prompt was answered"),
    _cost("plain_pairs", "plain pairs", "", "plain inputs and outputs of a secret product that a prompt gave away"),
    _cost("weights_mb", "weights", "MB", "weights allocated by both parties"),
    _cost("kv_mb", "KV cache", "MB", "KV cache held by both parties at the end of a prompt"),
    _cost("kv_trusted_mb", "KV, user's side", "MB", "KV cache held by the trusted party by then"),
    _cost("kv_untrusted_mb", "KV, provider's side", "MB", "KV cache held by the untrusted party by then"),
    _cost("resident_mb", "resident", "MB", "resident memory of the processes of both parties"),
    _cost("modelled_s", "link time", "s", "time the traffic would take over the modelled link; modelled, not measured"),
)  # fmt: skip

CARDS: dict[str, Card] = {card.name: card for card in _ALL}
"""Every metric a record may hold, by name."""


def summarise(name: str, values: Iterable[float | bool | None]) -> Estimate:
    """Average the per-prompt values of a named metric the way its card says.

    Raises:
        KeyError: for a metric without a card.
    """
    return aggregate(values, CARDS[name].scale)
