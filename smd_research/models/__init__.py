"""Any Hugging Face causal language model, its hooked attention, and the engine that attacks share."""

from smd_research.models.bundle import Bundle, Geometry

__all__ = ["Bundle", "Geometry"]
