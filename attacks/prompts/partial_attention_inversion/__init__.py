"""Partial-attention inversion: which tokens, at which positions, explain the partial attention a vault gave away?"""

from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion

__all__ = ["PartialAttentionInversion"]
