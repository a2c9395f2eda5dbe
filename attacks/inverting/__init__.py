"""Inversion of a model's answers: public pairs, a learned inverter, a verifier, a search that joins them."""
