"""Attacks on the prompt, one module or package each, named as its option in ``conf/attack``."""
