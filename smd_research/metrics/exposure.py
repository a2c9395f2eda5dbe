"""What the exposed part of the weights gives away before anybody mends it, and what keeping the rest costs."""

from smd_research.metrics.card import Card

EXPOSED = (
    Card(
        "exposed_increase", "loss above original", "privacy", "nats", "higher", "0", None, "linear",
        "mean loss a token of the exposed part minus that of the true model, on held-out documents",
    ),
    Card(
        "increase_per_parameter", "loss per secret parameter", "privacy", "nats per million", "higher", "0", None,
        "linear", "loss above the original's for each million secret parameters",
    ),
)  # fmt: skip

OVERLAPS = tuple(
    Card.leak(
        name, label, f"overlap of secret singular directions with those the stored weights do least in, {of}",
        "k / width",
    )
    for name, label, of in (
        ("hidden_overlap", "directions told", "all matrices"),
        ("hidden_overlap_square", "directions told, square", "square matrices"),
        ("hidden_overlap_oblong", "directions told, oblong", "the short side of other matrices"),
    )
)  # fmt: skip

SECRET_PARAMETERS = Card.cost(
    "secret_parameters", "secret parameters", "parameters", "sum of k (m + n) over all linear layers"
)

SHARES = tuple(
    Card(name, label, "cost", "", "lower", "", 1.0, "linear", f"{said}; closed form")
    for name, label, said in (
        ("secret_share", "secret share", "secret parameters over those of all linear layers"),
        ("trusted_flops", "trusted FLOPs", "online FLOPs of the trusted side over those of both, a token"),
        ("secret_flops", "secret FLOPs", "FLOPs of the secret parts over those of both sides, a token"),
        ("attention_flops", "attention FLOPs", "FLOPs of attention products over those of both sides, a token"),
        ("protocol_flops", "masking FLOPs", "FLOPs of masks and checks over those of both sides, a token"),
    )
)
