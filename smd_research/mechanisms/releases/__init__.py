"""What a client of split inference sends of its states: one question, which a defense and an attack both ask."""

from smd_research.mechanisms.releases.adapter import Adapter, Moments
from smd_research.mechanisms.releases.base import (
    GaussianRelease,
    PlainRelease,
    RadialRelease,
    Release,
    ReleaseParameters,
    release_of,
)
from smd_research.mechanisms.releases.learned import AdaptedRelease, BottleneckRelease, ClusteredRelease, SparseRelease
from smd_research.mechanisms.releases.simulated import SimulatedClient

__all__ = [
    "AdaptedRelease",
    "Adapter",
    "BottleneckRelease",
    "ClusteredRelease",
    "GaussianRelease",
    "Moments",
    "PlainRelease",
    "RadialRelease",
    "Release",
    "ReleaseParameters",
    "SimulatedClient",
    "SparseRelease",
    "release_of",
]
