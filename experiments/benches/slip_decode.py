"""Decoding under weight decomposition beside the plain model, one user, both parties in one process."""

from collections.abc import Iterator

from experiments.benches._slip import BenchRequest, pairs
from experiments.benches.case import Case, Settings

PROMPT = 64
NEW = {"small": 32, "full": 128}


def cases(settings: Settings) -> Iterator[Case]:
    """Milliseconds per output token after the first, exposed weights of 16 bits."""
    yield from pairs(settings, BenchRequest(PROMPT, NEW[settings.size]), {"wide": 16})
