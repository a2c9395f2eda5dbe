"""Splits of a weight matrix into a secret and an exposed part, and what the second tells of the first."""
