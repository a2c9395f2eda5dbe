"""Vocabulary matching: which token, after the prefix found so far, gives the hidden state that was seen?"""

from attacks.prompts.vocab_matching.attack import VocabMatching

__all__ = ["VocabMatching"]
