"""Latency of a token against the lengths of prompt and output (arXiv 2409.19134, Fig. 6)."""

import os
from collections.abc import Iterator

from experiments.benches._users import endless, interleaved
from experiments.benches.case import Modes, Settings
from smd_research.models import sources

LENGTHS = {"small": ((32, 64, 128), (32, 64, 128)), "full": ((64, 128, 256, 512), (64, 128, 256, 512))}
MODEL = {"small": "embedded", "full": "8b"}
USERS = {"small": 4, "full": 8}


def cases(settings: Settings) -> Iterator[Modes]:
    """Every pair of lengths, without protection and with secure multi-party decoding."""
    name, users = MODEL[settings.size], USERS[settings.size]
    bundle = endless(sources.embedded() if name == "embedded" else sources.random(name, device=settings.device))
    inputs, outputs = LENGTHS[settings.size]
    for prompt in inputs:
        for new in outputs:
            yield from interleaved(bundle, name, ("none", "smd"), users, prompt, new, os.cpu_count() or 1, settings)
