"""Exact arithmetic in a prime field: fixed point, one-time masks, checks of products and of look-ups."""
