"""Audits of rewriters: the laws of every written token, compared between texts over the whole vocabulary."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import ConfigError
from smd_research.mechanisms.rewriting.base import Rewriter

_SLACK = 1e-9
_REPEATED, _PREFIXES = 24, 12


def audit_rewriter(rewriter: Rewriter, texts: Tensor, sent: Sequence[int]) -> ClaimAudit:
    """Compare the laws of all tokens between all pairs of texts, given what was written before.

    The claim is that of the bounds, ``2 (high - low) / T``, whether logits are clipped or not: released code that sets
    a temperature alone is held to it too. The largest ratio over pairs is the spread of each log probability.

    Args:
        rewriter: what is audited.
        texts: token ids ``[texts, n]``, special tokens in the same places, at least two.
        sent: a text that one of them may have become: its tokens are the prefixes.

    Raises:
        ConfigError: for fewer than two texts.
    """
    if len(texts) < 2:
        raise ConfigError("an audit compares texts: give at least two")
    places = len(rewriter.drawn(sent))
    least = torch.full((places, rewriter.vocab), torch.inf, dtype=torch.float64)
    most = torch.full_like(least, -torch.inf)
    for part in rewriter.parts(texts, places):
        laws = rewriter.log_laws(part, sent).cpu()
        least, most = torch.minimum(least, laws.amin(0)), torch.maximum(most, laws.amax(0))
    possible = torch.ones(rewriter.vocab, dtype=torch.bool)
    possible[rewriter.softmax.barred] = False
    full = bool(least[:, possible].isfinite().all())
    measured = float((most - least)[:, possible].max()) if full else float("inf")
    claimed = rewriter.softmax.epsilon
    return ClaimAudit(
        claim="epsilon of one written token, between any two texts",
        claimed=claimed,
        measured=measured,
        holds=full and measured <= claimed * (1 + _SLACK),
        how="exact laws of every written token, all tokens, all pairs of the texts given",
        n=len(texts) * (len(texts) - 1) // 2 * places * int(possible.sum()),
        exact=False,
        differing=None if full else 1.0,
    )


def hardest_audit(rewriter: Rewriter, texts: Tensor, passed: Collection[int], rng: np.random.Generator) -> ClaimAudit:
    """The worst of several audits: between texts as people write them, and between those of one token over and over.

    A model that has read one token many times expects it with all its might: where a bound can be broken, it is there.
    The longer the texts, the more so: 20 tokens find what 10 do not. Laws that are the same after several prefixes are
    computed once.

    Args:
        rewriter: what is audited.
        texts: token ids ``[texts, n]`` of public text, special tokens in the same places.
        passed: tokens that stay in their places.
        rng: draws the tokens that are repeated, from the texts and from the vocabulary.
    """
    own = sorted(set(texts.flatten().tolist()) - set(passed))
    repeated = {*rng.choice(own, min(len(own), _REPEATED), replace=False).tolist()}
    drawable = sorted(set(range(rewriter.vocab)) - set(rewriter.softmax.barred.tolist()))
    repeated |= {*rng.choice(drawable, _REPEATED, replace=False).tolist()}
    stays = torch.isin(texts[0], torch.tensor(sorted(passed), dtype=texts.dtype, device=texts.device))
    monotonous = torch.where(
        stays, texts[0], torch.tensor(rng.permutation(sorted(repeated)), device=texts.device)[:, None]
    )
    everything = torch.cat([texts, monotonous])
    prefixes = [*texts[:1].tolist(), *monotonous[:_PREFIXES].tolist()]
    known = {rewriter.conditions(sent): sent for sent in prefixes}
    audits = {laws: audit_rewriter(rewriter, everything, sent) for laws, sent in known.items()}
    found = [audits[rewriter.conditions(sent)] for sent in prefixes]
    worst = max(found, key=lambda audit: audit.measured)
    return replace(worst, holds=all(audit.holds for audit in found), n=sum(audit.n for audit in found))
