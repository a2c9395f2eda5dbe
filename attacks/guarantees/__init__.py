"""Attacks on promises: two inputs that a mechanism's outputs tell apart better than was promised."""
