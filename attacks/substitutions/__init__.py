"""Attacks on a secret substitution of token ids, one module or package each, named as its option."""
