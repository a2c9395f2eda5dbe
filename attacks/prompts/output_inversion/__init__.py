"""Inversion of a model's answers: public pairs, a learned inverter, a verifier, a search that joins them."""

from attacks.prompts.output_inversion.attack import LogitInversion, OutputInversion

__all__ = ["LogitInversion", "OutputInversion"]
