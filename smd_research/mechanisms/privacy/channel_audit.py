"""What a token mechanism claims against what is measured of it: exact where outputs can be counted, else a bound."""

import math

import numpy as np

from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import NotApplicableError
from smd_research.mechanisms.privacy.audit import (
    audit_log_ratio,
    audit_token_pair,
    closest_pair,
    log_ratios,
    pair_lower_bound,
)
from smd_research.mechanisms.privacy.customised_sets import CustomisedChannel, OwnListsChannel
from smd_research.mechanisms.privacy.embedding_space import Ids
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.random_lists import RandomListChannel
from smd_research.mechanisms.privacy.sensitive_words import SensitiveWordsChannel
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, TokenChannel
from smd_research.mechanisms.privacy.unknown_tokens import UniformUnknown
from smd_research.mechanisms.privacy.vector_audits import CONFIDENCE, radial_law

INPUTS = 1024  # compared pairwise where there are more
_SLACK = 1e-6


def audit_claims(
    channel: TokenChannel, rng: np.random.Generator, inputs: int = INPUTS, draws: int = 20_000
) -> tuple[ClaimAudit, ...]:
    """Audit every claim of a token mechanism.

    Args:
        channel: whose law, or whose sampler, is audited as it stands.
        rng: source of the draws.
        inputs: private tokens compared pairwise, evenly spread over the vocabulary; all where there are fewer.
        draws: on each side of a distinguishing game.

    Raises:
        NotApplicableError: for a channel of another kind, of which no audit is known.
    """
    match channel:
        case UniformUnknown():
            return audit_claims(channel.inner, rng, inputs, draws)
        case ExponentialChannel():
            return (_metric(channel, _spread(channel.space.private_ids, inputs)),)
        case SensitiveWordsChannel():
            return _sensitive(channel, inputs)
        case OwnListsChannel():
            return (_lists(channel),)
        case CustomisedChannel():
            return _sets(channel)
        case NoisyNearestChannel():
            return (_noise(channel, rng, draws), _closest(channel, rng, inputs, draws))
        case RandomListChannel():
            return (_random_lists(channel, rng, inputs, draws),)
    raise NotApplicableError(f"no audit is known of {type(channel).__name__}")


def _spread(ids: Ids, count: int) -> Ids:
    """At most ``count`` of them, evenly spread."""
    return ids[np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(np.int64))]


def _metric(channel: ExponentialChannel, ids: Ids) -> ClaimAudit:
    found = audit_log_ratio(channel, ids=ids)
    measured = channel.epsilon * found.tightest if found.same_support else math.inf
    return ClaimAudit(
        "epsilon times distance, between any two tokens",
        channel.epsilon,
        measured,
        found.holds,
        "exact, all outputs",
        found.pairs,
        differing=0.0 if found.same_support else None,
    )


def _sensitive(channel: SensitiveWordsChannel, inputs: int) -> tuple[ClaimAudit, ...]:
    """Between sensitive words; against words that are kept, sensitive outputs alone; and all outputs."""
    sensitive = _spread(channel.sensitive_ids, inputs)
    kept = _spread(np.flatnonzero(channel.is_kept), inputs)
    columns = channel.outputs.private_ids
    inside, outside = (np.ascontiguousarray(channel.log_prob(ids)[:, columns]) for ids in (sensitive, kept))
    between = channel.outputs.column[sensitive]
    among, to_kept = channel.outputs.distances(sensitive)[:, between], channel.outputs.distances(kept)[:, between]
    ratios = log_ratios(inside, inside)
    apart = among > 1e-9
    measured = channel.epsilon * float((ratios[apart] / (channel.epsilon * among[apart])).max(initial=0.0))
    pairs = len(sensitive) * (len(sensitive) - 1) // 2
    results = [
        ClaimAudit(
            "epsilon times distance, between sensitive words",
            channel.epsilon,
            measured,
            bool((ratios <= channel.epsilon * among + _SLACK).all()),
            "exact, all outputs",
            pairs,
            differing=0.0,
        )
    ]
    if len(kept):
        over = float((log_ratios(outside, inside) - channel.epsilon * to_kept).max())
        allowed = -math.log(channel.resampled)
        results += [
            ClaimAudit(
                "ln(1/p) beyond epsilon times distance, sensitive against other words, outputs in the sensitive set",
                allowed,
                max(over, 0.0),
                over <= allowed + _SLACK,
                "exact, sensitive outputs",
                len(kept) * len(sensitive),
            ),
            ClaimAudit(
                "epsilon times distance, sensitive against other words, all outputs",
                channel.epsilon,
                math.inf if channel.resampled < 1 else channel.epsilon,
                channel.resampled == 1,
                "exact, supports compared",
                len(kept) * len(sensitive),
                differing=float(channel.resampled < 1),
            ),
        ]
    return tuple(results)


def _sets(channel: CustomisedChannel) -> tuple[ClaimAudit, ...]:
    """Within the sets and across them, all pairs of the vocabulary."""
    members, logs = channel.law(channel.space.private_ids)
    group, sizes = _groups(members)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    highest = np.maximum.reduceat(logs[order], starts)
    lowest = np.minimum.reduceat(logs[order], starts)
    possible = np.isfinite(highest)
    measured = float((highest[possible] - lowest[possible]).max())
    within, everything = int((sizes * (sizes - 1) // 2).sum()), len(members) * (len(members) - 1) // 2
    across = everything - within
    return (
        ClaimAudit(
            "epsilon, within a set",
            channel.epsilon,
            measured,
            measured <= channel.epsilon + _SLACK,
            "exact, all outputs",
            within,
            differing=0.0,
        ),
        ClaimAudit(
            "epsilon, across sets",
            channel.epsilon,
            math.inf if across else 0.0,
            not across,
            "exact, supports compared",
            across,
            differing=float(across > 0),
        ),
    )


def _lists(channel: CustomisedChannel) -> ClaimAudit:
    """All pairs of the vocabulary by their lists; pairs with the same list are looked at no further."""
    members = channel.members(channel.space.private_ids)
    _, sizes = _groups(members)
    everything = len(members) * (len(members) - 1) // 2
    same = int((sizes * (sizes - 1) // 2).sum())
    differing = 1.0 - same / everything
    return ClaimAudit(
        "epsilon, between any two tokens",
        channel.epsilon,
        math.inf if same < everything else channel.epsilon,
        same == everything,
        "exact, supports compared",
        everything,
        differing=differing,
    )


def _groups(members: Ids) -> tuple[Ids, Ids]:
    """Number of each row's set of outputs, and how many rows have it."""
    _, group, sizes = np.unique(np.sort(members, axis=1), axis=0, return_inverse=True, return_counts=True)
    return group.reshape(-1), sizes


def _noise(channel: NoisyNearestChannel, rng: np.random.Generator, draws: int) -> ClaimAudit:
    """The law of what is added to rows, where it has to be radial."""
    width = channel.space.width
    count = max(2_000, min(draws, 2_000_000 // width))
    noise = channel.whitened(channel.noise(count, rng))
    return radial_law("noise of density exp(-epsilon * norm)", noise, channel.epsilon)


def _closest(channel: NoisyNearestChannel, rng: np.random.Generator, inputs: int, draws: int) -> ClaimAudit:
    """A distinguishing game on the two tokens that lie closest, where the promise is hardest to keep."""
    pair = closest_pair(channel.metric, _spread(channel.space.private_ids, inputs))
    bound = audit_token_pair(channel, pair, draws, rng, CONFIDENCE)
    return ClaimAudit(
        "epsilon times distance, between the two closest tokens looked at",
        bound.claimed,
        bound.epsilon_lower,
        not bound.refuted,
        f"distinguishing game, at least at {CONFIDENCE:.1%} confidence",
        draws,
        exact=False,
        ceiling=bound.ceiling,
    )


def _random_lists(channel: RandomListChannel, rng: np.random.Generator, inputs: int, draws: int) -> ClaimAudit:
    """A distinguishing game on two tokens far apart, and how many pairs of lists differ, one draw of each."""
    ids = _spread(channel.space.private_ids, min(inputs, 256))
    between = channel.space.distances(ids)[:, channel.space.column[ids]]
    first, second = (int(ids[place]) for place in np.unravel_index(int(np.argmax(between)), between.shape))
    law = np.maximum(channel.log_prob([first, second]), -50.0)
    likelier, rarer = ((law[0] - law[1])[channel.sample(np.full(draws, token), rng)] for token in (first, second))
    bound = pair_lower_bound(likelier, rarer, channel.epsilon, confidence=CONFIDENCE)
    lists = channel.lists(ids, rng)
    differing = np.mean([(lists[i] != lists[i + 1 :]).any(axis=1).mean() for i in range(len(ids) - 1)])
    return ClaimAudit(
        "epsilon, between any two tokens",
        channel.epsilon,
        bound.epsilon_lower,
        not bound.refuted,
        f"distinguishing game, at least at {CONFIDENCE:.1%} confidence; a draw of each list",
        draws,
        exact=False,
        differing=float(differing),
        ceiling=bound.ceiling,
    )
