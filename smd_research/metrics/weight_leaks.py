"""What attacks on a weight decomposition say of themselves besides the weights that they restore."""

from smd_research.metrics.card import Card

ERRORS = tuple(
    Card(
        f"weight_error_{form}", f"error, {form}", "privacy", "", "higher", "1", None, "positive",
        f"error of the secret part over the protected matrices that are {words}",
    )
    for form, words in (("tall", "with more rows than columns"), ("square", "square"), ("wide", "with more columns"))
)  # fmt: skip

READ = (
    Card.leak("output_changed", "changed unnoticed", "tampered requests with another answer, not refused", "0"),
    Card.leak("rows_sharing_masks", "masks used twice", "masked rows whose mask the attack finds twice", "0"),
    Card.leak("signal_share", "not the mask", "power of masked inputs that is not the mask's, over products", "0"),
    Card.leak("signal_share_worst", "not the mask, worst", "the same, of the product that shows most", "0"),
    Card.leak(
        "head_overlap", "head found", "overlap of the space of the logits with that of the head", "width / vocabulary"
    ),
)

COUNTED = tuple(
    Card(name, label, "privacy", unit, "lower", "", None, "positive", said)
    for name, label, unit, said in (
        ("pairs_seen", "pairs seen", "pairs", "different plaintext pairs of the product that showed fewest"),
        ("pairs_used", "pairs used", "pairs", "pairs of each product that the attack used"),
        ("tampered_replies", "tampered replies", "replies", "replies that the device tampered with, a request"),
        ("comparisons_read", "comparisons read", "comparisons", "hidden logits compared, a request"),
        ("width_found", "width found", "", "rank of the logits"),
        ("logit_vectors", "logit vectors", "", "logit vectors that the attack had"),
    )
)

HIDDEN_BITS = Card(
    "hidden_bits", "bits that hide", "privacy", "bits", "higher", "bits of the prime", None, "positive",
    "what is left to hide a masked number once another of its mask is known: of the largest difference found",
)  # fmt: skip
