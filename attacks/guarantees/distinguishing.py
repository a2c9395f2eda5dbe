"""The distinguishing game: a mechanism is played on pairs of inputs; what tells them apart is held to its claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.base import GuaranteeAttack, Public
from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.mechanisms.privacy.channel_audit import audit_claims
from smd_research.mechanisms.privacy.channels import TokenChannelParameters, published_channel
from smd_research.mechanisms.privacy.gaussian import GaussianParameters
from smd_research.mechanisms.privacy.radial import RadialMechanism, RadialParameters
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse, audit_response
from smd_research.mechanisms.privacy.vector_audits import audit_calibration, audit_radial, audit_release
from smd_research.mechanisms.rewriting.audit import hardest_audit
from smd_research.mechanisms.rewriting.parameters import RewriteParameters

LEAST_DRAWS = 1000
"""Of a game: fewer bound nothing."""


@dataclass(frozen=True)
class AuditEffort:
    """How hard is looked.

    Attributes:
        inputs: that are compared pairwise, where there are more.
        draws: on each side of a game.
        texts: that are compared pairwise.
        text_tokens: of each.

    Raises:
        ConfigError: for a value out of range.
    """

    inputs: int
    draws: int
    texts: int
    text_tokens: int

    def __post_init__(self) -> None:
        if min(self.inputs, self.texts, self.text_tokens) < 2 or self.draws < LEAST_DRAWS:
            raise ConfigError(
                f"attack: inputs, texts and text_tokens are 2 or more, draws {LEAST_DRAWS} or more; not {self.inputs}, "
                f"{self.texts}, {self.text_tokens} and {self.draws}"
            )


class Distinguishing(GuaranteeAttack):
    """Audits a mechanism from its public parameters: exactly where its law is known, else by a game with confidence.

    Args:
        inputs: tokens that are compared pairwise, evenly spread over the vocabulary; all where there are fewer.
        draws: of the mechanism on each side of a game.
        texts: of public text that are compared pairwise, where a mechanism takes a whole text.
        text_tokens: to which they are cut, and rows of a message that is noised as one.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(self, inputs: int, draws: int, texts: int, text_tokens: int) -> None:
        self.effort = AuditEffort(inputs, draws, texts, text_tokens)

    def refute(self, rng: np.random.Generator) -> Sequence[ClaimAudit]:
        found = [
            claim
            for kind, audit in AUDITS.items()
            if (published := self.public.published(kind)) is not None
            for claim in audit(published, self.public, self.effort, rng)
        ]
        if not found:
            raise NotApplicableError(f"{self.public.defense} publishes no mechanism whose promise could be audited")
        return found


Found = Sequence[ClaimAudit]
Audit = Callable[[Any, Public, AuditEffort, np.random.Generator], Found]
"""Audits a mechanism by its public parameters."""


def _tokens(known: TokenChannelParameters, public: Public, effort: AuditEffort, rng: np.random.Generator) -> Found:
    return audit_claims(published_channel(known, public.bundle), rng, effort.inputs, effort.draws)


def _gaussian(known: GaussianParameters, public: Public, effort: AuditEffort, rng: np.random.Generator) -> Found:
    rows = effort.text_tokens if known.unit == "sequence" else 1
    return [audit_calibration(known, rows), audit_release(known, rng, rows, effort.draws)]


def _radial(known: RadialParameters, public: Public, effort: AuditEffort, rng: np.random.Generator) -> Found:
    width = public.bundle.embedding.shape[1]
    mechanism = RadialMechanism(known.epsilon, width, sampler=known.sampler, clip=known.clip)
    return [audit_radial(mechanism, rng, effort.draws)]


def _rewriting(known: RewriteParameters, public: Public, effort: AuditEffort, rng: np.random.Generator) -> Found:
    texts = _public_texts(public, effort)
    return [hardest_audit(known.rewriter(public.bundle), texts, public.bundle.special_ids | {*known.passed}, rng)]


def _labels(known: RandomisedResponse, public: Public, effort: AuditEffort, rng: np.random.Generator) -> Found:
    return [audit_response(known)]


AUDITS: Mapping[type, Audit] = {
    TokenChannelParameters: _tokens,
    GaussianParameters: _gaussian,
    RadialParameters: _radial,
    RewriteParameters: _rewriting,
    RandomisedResponse: _labels,
}
"""By the type of what is published."""


def _public_texts(public: Public, effort: AuditEffort) -> Tensor:
    """Openings of public documents of one length ``[texts, text_tokens]``.

    Raises:
        ConfigError: where fewer than two are long enough.
    """
    length = effort.text_tokens
    long = [ids[:length] for ids in public.corpus if len(ids) >= length][: effort.texts]
    if len(long) < 2:
        raise ConfigError(f"attack.text_tokens={length}: {len(long)} public texts are that long, two are needed")
    return torch.tensor(long, device=public.bundle.device)
