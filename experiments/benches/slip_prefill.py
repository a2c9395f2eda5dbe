"""The first token under weight decomposition beside the plain model, one user, both parties in one process."""

from collections.abc import Iterator

from experiments.benches._slip import BenchRequest, pairs
from experiments.benches.case import Case, Settings

PROMPTS = {"small": (64,), "full": (64, 256)}


def cases(settings: Settings) -> Iterator[Case]:
    """Milliseconds to the first token: exposed weights of 16 bits in two limbs, and of 8 bits in one."""
    for prompt in PROMPTS[settings.size]:
        yield from pairs(settings, BenchRequest(prompt, 1), {"wide": 16, "narrow": 8})
