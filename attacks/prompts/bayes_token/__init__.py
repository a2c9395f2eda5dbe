"""Recover sanitised text from its public channel and a prior."""

from attacks.prompts.bayes_token.attack import BayesToken

__all__ = ["BayesToken"]
