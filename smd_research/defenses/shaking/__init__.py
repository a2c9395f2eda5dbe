"""Keyed shaking (CypherTalk, arXiv 2403.07283; reconstructed) and SentinelLMs' construction, as defenses."""

from smd_research.defenses.shaking.defense import Shaking
from smd_research.defenses.shaking.implant import HEADS, shaken
from smd_research.defenses.shaking.sentinel import Sentinel

__all__ = ["HEADS", "Sentinel", "Shaking", "shaken"]
