"""Latency of a token against the size of the model, eight users (arXiv 2409.19134, Fig. 5)."""

import os
from collections.abc import Iterator

from experiments.benches._users import MODES, endless, interleaved
from experiments.benches.case import Modes, Settings
from smd_research.models import sources

USERS = {"small": 4, "full": 8}
SIZES = {"small": ("5m", "25m", "100m"), "full": ("100m", "1b", "3b", "8b")}


def cases(settings: Settings) -> Iterator[Modes]:
    """Every size, the three modes interleaved."""
    for name in SIZES[settings.size]:
        bundle = endless(sources.random(name, device=settings.device))
        yield from interleaved(bundle, name, tuple(MODES), USERS[settings.size], 64, 16, os.cpu_count() or 1, settings)
