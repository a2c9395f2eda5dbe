"""Prompt Obfuscation: an authentic prompt among virtual ones, on top of secure multi-party decoding."""

from smd_research.defenses.po.defense import Po, PoDeployment, UnmarkedWarning

__all__ = ["Po", "PoDeployment", "UnmarkedWarning"]
