"""Secure multi-party decoding: vault, decode service, and the defense that joins them."""

from smd_research.defenses.smd.defense import Smd, SmdDeployment
from smd_research.defenses.smd.vault import Vault

__all__ = ["Smd", "SmdDeployment", "Vault"]
