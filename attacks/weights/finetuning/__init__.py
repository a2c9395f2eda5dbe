"""Restoring a model from the exposed part of its weights by training on public text."""

from attacks.weights.finetuning.methods import FromScratch, FullFineTuning, LoraFineTuning, NullSpaceFineTuning

__all__ = ["FromScratch", "FullFineTuning", "LoraFineTuning", "NullSpaceFineTuning"]
