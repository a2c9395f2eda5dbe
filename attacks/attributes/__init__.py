"""Attacks on what a private text is about, one module each, named as its option."""
