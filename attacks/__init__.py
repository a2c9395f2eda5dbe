"""Reconstruction attacks: one module an attack family."""
