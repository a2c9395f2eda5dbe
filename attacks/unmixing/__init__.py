"""Attention unmixing: which tokens, at which positions, explain the partial attention a vault gave away."""
