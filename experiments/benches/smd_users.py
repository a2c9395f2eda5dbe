"""Users decoding at once: no protection (one batch), secure multi-party decoding, and full isolation.

Latency of a token for all users, from the first request to the last token, prefill included (arXiv 2409.19134, Fig. 4).
"""

import os
from collections.abc import Iterator

from experiments.benches._users import MODES, endless, interleaved
from experiments.benches.case import Modes, Settings
from smd_research.models import sources

SMALL = (("embedded", 64, 48), ("100m", 64, 48))  # as many as of one user in smd_decode; of fewer, prefill is most
FULL = (("embedded", 64, 64), ("100m", 64, 64), ("1b", 64, 64), ("8b", 64, 64))
USERS = {"small": (1, 2, 4, 8, 16), "full": (1, 2, 4, 8, 16, 32)}


def cases(settings: Settings) -> Iterator[Modes]:
    """Every model at every number of users, the three modes interleaved."""
    for name, prompt, new in SMALL if settings.size == "small" else FULL:
        bundle = endless(sources.embedded() if name == "embedded" else sources.random(name, device=settings.device))
        for users in USERS[settings.size]:
            yield from interleaved(bundle, name, tuple(MODES), users, prompt, new, os.cpu_count() or 1, settings)
