"""Restoring a model from the exposed part of its weights by training on public text."""
