"""Prompts with marked secrets: synthetic corpora, files, hub datasets."""
