"""How long an attack took, and which of its stages did what; the candidates tried are counted with its guess."""

from smd_research.metrics.card import PRIOR, Card

ATTACK_S = Card(
    "attack_s", "attack time", "privacy", "s", "higher", "", None, "positive", "seconds the attack took a prompt"
)

INVERTER_ACCURACY = Card(
    "inverter_accuracy", "inverter, held out", "privacy", "", "lower", PRIOR, 1.0, "rate",
    "tokens that a learned inverter reads of public text which it was not trained on: how far its training came",
)  # fmt: skip

CHANNEL_ERROR = Card(
    "channel_error", "channel, error", "privacy", "", "higher", "", None, "positive",
    "root mean square error of an estimated channel: of the probability that a token passes, as often as it occurs",
)  # fmt: skip

STAGES = tuple(
    card
    for stage, what in (
        ("row_space", "the span of the replies"),
        ("deduction", "row maxima and masses"),
        ("peeling", "the span of what known positions leave"),
        ("pursuit", "the search over what is left"),
        ("left_to_right", "the span of a higher layer's replies"),
    )
    for card in (
        Card(f"{stage}_tokens", f"by {stage}", "privacy", "tokens", "higher", "", None, "positive", f"named by {what}"),
        Card(f"{stage}_s", f"{stage} time", "privacy", "s", "higher", "", None, "positive", f"seconds for {what}"),
    )
)
