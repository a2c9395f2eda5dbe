"""Secure multi-party decoding between two processes beside the unprotected model between two processes, one user."""

from collections.abc import Iterator
from functools import partial

import torch

from experiments.benches._users import endless
from experiments.benches.case import Case, Settings
from smd_research.boundary import Boundary
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Deployment
from smd_research.defenses.none import NoDefense
from smd_research.defenses.smd import Smd
from smd_research.models import Bundle, sources
from smd_research.models.smollm2_package import installed

PROMPT_TOKENS = 64
NEW_TOKENS = 48


def _models() -> Iterator[tuple[str, Bundle]]:
    """The shipped model, one of 100 million random weights, and the real one where its package is installed."""
    yield "embedded", sources.embedded()
    yield "100m", sources.random("100m")
    if installed():
        yield "smollm2", sources.smollm2()


def _milliseconds_per_token(deployment: Deployment, prompt: Prompt) -> float:
    seconds = deployment.generate(prompt, NEW_TOKENS).tpot_s
    assert seconds is not None
    return seconds * 1e3


def cases(settings: Settings) -> Iterator[Case]:
    """Milliseconds per output token: SMD over plain, and SMD in one process over plain."""
    generator = torch.Generator().manual_seed(settings.seed)
    for name, bundle in _models():
        bundle = endless(bundle)
        prompt = Prompt("bench", "", tuple(torch.randint(5, 4096, (PROMPT_TOKENS,), generator=generator).tolist()))
        what = f"{name} users=1 prompt={PROMPT_TOKENS} threads={settings.threads}"
        pairs = f"{what} smd/none", f"{what} smd-inproc/none"
        if not any(map(settings.wants, pairs)):
            continue

        def boundary(transport: str) -> Boundary:
            return Boundary(transport, record=False, threads=settings.threads)

        with (
            NoDefense().prepare(bundle).deploy(boundary("process")) as plain,
            Smd().prepare(bundle).deploy(boundary("process")) as smd,
            Smd().prepare(bundle).deploy(boundary("inproc")) as together,
        ):
            beside = partial(_milliseconds_per_token, plain, prompt)
            for pair, ours in zip(pairs, (smd, together), strict=True):
                yield Case(pair, partial(_milliseconds_per_token, ours, prompt), beside, "ms/token")
