"""Defenses: two live parties and what passes between them."""
