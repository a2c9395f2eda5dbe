"""A learned inverter of the states at a cut."""

from attacks.prompts.learned_inversion.attack import LearnedInversion

__all__ = ["LearnedInversion"]
