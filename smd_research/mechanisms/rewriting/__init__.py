"""Texts rewritten token by token under differential privacy, and the laws that their attacker knows (Kerckhoffs)."""
