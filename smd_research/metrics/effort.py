"""How long an attack took; the candidates that it tried are counted with its guess."""

from smd_research.metrics.card import Card

ATTACK_S = Card(
    "attack_s", "attack time", "privacy", "s", "higher", "", None, "positive", "seconds the attack took a prompt"
)
