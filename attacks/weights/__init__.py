"""Attacks on secret weights, one module or package each, named as its option in ``conf/attack``."""
