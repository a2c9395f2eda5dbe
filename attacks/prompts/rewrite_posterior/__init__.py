"""Rewritten text read backwards: the public law of what was written, and a prior over what may have been said."""

from attacks.prompts.rewrite_posterior.attack import RewritePosterior
from attacks.prompts.rewrite_posterior.register import RewriteRegister

__all__ = ["RewritePosterior", "RewriteRegister"]
