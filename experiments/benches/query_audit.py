"""The vault's query audit at each level beside no audit: milliseconds per output token of one user's decode."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch

from experiments.benches._users import endless
from experiments.benches.case import Modes, Settings
from smd_research.boundary import Boundary
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Deployment, PublicText
from smd_research.defenses.smd import Smd
from smd_research.mechanisms.attention.query_audit import AuditLevel
from smd_research.models import Bundle, sources

PROMPT_TOKENS, NEW_TOKENS = 64, 48
SLACK = 10.0  # random prompts are no public text: nothing is refused here, every check is made


def _milliseconds_per_token(deployment: Deployment, prompt: Prompt) -> float:
    seconds = deployment.generate(prompt, NEW_TOKENS).tpot_s
    assert seconds is not None
    return seconds * 1e3


def _audited(bundle: Bundle, level: AuditLevel, settings: Settings) -> Deployment:
    defense = Smd(audit=level, audit_slack=SLACK)
    documents = generate("mixed", "train", 8, settings.seed)
    text = PublicText([prompt.ids for prompt in tokenised(documents, bundle.tokenizer, PROMPT_TOKENS, 0)])
    boundary = Boundary("process", record=False, threads=settings.threads)
    return defense.prepare(bundle, text, settings.seed).deploy(boundary)


def cases(settings: Settings) -> Iterator[Modes]:
    """One case a model, the audit's levels as modes; the first is no audit."""
    generator = torch.Generator().manual_seed(settings.seed)
    for name in ("embedded", "100m") if settings.size == "full" else ("embedded",):
        bundle = endless(sources.embedded() if name == "embedded" else sources.random(name))
        prompt = Prompt("bench", "", tuple(torch.randint(5, 4096, (PROMPT_TOKENS,), generator=generator).tolist()))
        with ExitStack() as open_ones:
            modes = {
                f"audit={level}": partial(
                    _milliseconds_per_token, open_ones.enter_context(_audited(bundle, level, settings)), prompt
                )
                for level in AuditLevel
            }
            labels = {"model": name, "prompt": PROMPT_TOKENS, "threads": settings.threads}
            yield Modes(f"{name} prompt={PROMPT_TOKENS} threads={settings.threads}", modes, "ms/token", labels=labels)
