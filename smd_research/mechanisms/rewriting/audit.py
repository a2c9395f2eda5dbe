"""Audits of rewriters: the laws of every written token, compared between texts over the whole vocabulary."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import ConfigError
from smd_research.mechanisms.rewriting.base import Rewriter
from smd_research.mechanisms.rewriting.worst_pair import Ascent, pair_at

_SLACK = 1e-9
_REPEATED, _PREFIXES = 24, 12
_HOW = "exact laws of every written token, all tokens, all pairs of the texts given and of two that a search found"


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
    return _judged(rewriter, _largest_ratios(rewriter, texts, sent), len(texts))


def hardest_audit(rewriter: Rewriter, texts: Tensor, passed: Collection[int], rng: np.random.Generator) -> ClaimAudit:
    """The worst of several audits: of texts as people write them and of one token over and over, then of a search.

    A model that has read one token many times expects it with all its might: where a bound can be broken, it is near
    there. The longer the texts, the more so: 20 tokens find what 10 do not. Laws that are the same after several
    prefixes are computed once. From the worst pair of these texts an :class:`Ascent` goes on; where it ends is audited
    with all the others. It is the same for every rewriter, clipped or not.

    Args:
        rewriter: what is audited.
        texts: token ids ``[texts, n]`` of public text, special tokens in the same places.
        passed: tokens that stay in their places.
        rng: draws the tokens that are repeated, from the texts and from the vocabulary, then what the search tries.
    """
    stays = torch.isin(texts[0], torch.tensor(sorted(passed), dtype=texts.dtype, device=texts.device))
    monotonous = _monotonous(rewriter, texts, stays, passed, rng)
    everything = torch.cat([texts, monotonous])
    prefixes = [*texts[:1].tolist(), *monotonous[:_PREFIXES].tolist()]
    known = {rewriter.conditions(sent): sent for sent in prefixes}
    ratios = {laws: _largest_ratios(rewriter, everything, sent) for laws, sent in known.items()}
    found = [_judged(rewriter, ratios[rewriter.conditions(sent)], len(everything)) for sent in prefixes]
    hardest = max(known, key=lambda laws: float(ratios[laws].max()))
    if bool(ratios[hardest].isfinite().all()):
        place = rewriter.drawn(known[hardest])[int(ratios[hardest].argmax())]
        ascent = Ascent(rewriter, (~stays).nonzero()[:, 0].tolist(), np.flatnonzero(_drawable(rewriter).numpy()))
        pair = ascent.climb(pair_at(rewriter, everything, known[hardest], place), rng)
        found.append(audit_rewriter(rewriter, torch.cat([everything, pair.texts]), pair.sent))
    worst = max(found, key=lambda audit: audit.measured)
    return replace(worst, holds=all(audit.holds for audit in found), how=_HOW, n=sum(audit.n for audit in found))


def _largest_ratios(rewriter: Rewriter, texts: Tensor, sent: Sequence[int]) -> Tensor:
    """The largest log ratio between texts, over the tokens that may be drawn, at each place ``[drawn]``.

    Infinite where a text rules one of them out.
    """
    places = len(rewriter.drawn(sent))
    least = torch.full((places, rewriter.vocab), torch.inf, dtype=torch.float64)
    most = torch.full_like(least, -torch.inf)
    for part in rewriter.parts(texts, places):
        laws = rewriter.log_laws(part, sent).cpu()
        least, most = torch.minimum(least, laws.amin(0)), torch.maximum(most, laws.amax(0))
    return (most - least)[:, _drawable(rewriter)].nan_to_num(nan=torch.inf, posinf=torch.inf).amax(1)


def _judged(rewriter: Rewriter, ratios: Tensor, texts: int) -> ClaimAudit:
    """What the largest log ratios at each place ``[drawn]`` say of the claim, where so many texts were compared."""
    measured, claimed = float(ratios.max()), rewriter.softmax.epsilon
    full = math.isfinite(measured)
    return ClaimAudit(
        claim="epsilon of one written token, between any two texts",
        claimed=claimed,
        measured=measured,
        holds=full and measured <= claimed * (1 + _SLACK),
        how="exact laws of every written token, all tokens, all pairs of the texts given",
        n=texts * (texts - 1) // 2 * len(ratios) * int(_drawable(rewriter).sum()),
        exact=False,
        differing=None if full else 1.0,
    )


def _monotonous(
    rewriter: Rewriter, texts: Tensor, stays: Tensor, passed: Collection[int], rng: np.random.Generator
) -> Tensor:
    """Texts of one token over and over ``[tokens, n]``, but for what stays."""
    own = sorted(set(texts.flatten().tolist()) - set(passed))
    repeated = {*rng.choice(own, min(len(own), _REPEATED), replace=False).tolist()}
    drawable = np.flatnonzero(_drawable(rewriter).numpy())
    repeated |= {*rng.choice(drawable, _REPEATED, replace=False).tolist()}
    return torch.where(stays, texts[0], torch.tensor(rng.permutation(sorted(repeated)), device=texts.device)[:, None])


def _drawable(rewriter: Rewriter) -> Tensor:
    """Whether a token may be drawn ``[vocab]``."""
    drawable = torch.ones(rewriter.vocab, dtype=torch.bool)
    drawable[rewriter.softmax.barred] = False
    return drawable
