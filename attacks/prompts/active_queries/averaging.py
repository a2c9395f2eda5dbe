"""Answers to one query asked again and again: what a vault draws anew for each averages out."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch

from attacks.base import Public
from smd_research.boundary import AdversaryView, Direction
from smd_research.boundary.messages import MergedRows, Message, PartialAttention, Query, SummedAttention
from smd_research.mechanisms.attention.reply_noise import ReplyNoiseParameters

_Reply = PartialAttention | SummedAttention | MergedRows


def averaged(view: AdversaryView, answers: int) -> AdversaryView:
    """A view of layer 0 alone, in which each query stands once, with the mean of its answers.

    Args:
        view: in which queries of layer 0 were repeated, those of one position being the same.
        answers: how many each has; a query with fewer, where a budget ended, is left out.
    """
    asked: dict[int, tuple[Direction, Query]] = {}
    heard: dict[tuple[int, int], list[_Reply]] = defaultdict(list)
    kept: list[tuple[Direction, Message]] = []
    for way, message in view.messages:
        if isinstance(message, Query):
            asked[message.request] = way, message
        elif isinstance(message, PartialAttention | SummedAttention | MergedRows):
            if message.layer == 0:
                said = heard[message.request, message.position]
                said.append(message)
                if len(said) == answers:
                    kept += [asked[message.request], (way, _mean(said))]
        else:
            kept.append((way, message))
    return replace(view, messages=tuple(kept))


def less_noise(public: Public, answers: int) -> Public:
    """What is public, with the noise that is left on the mean of so many answers."""
    share = answers**-0.5
    parameters = tuple(
        replace(one, noise_multiplier=one.noise_multiplier * share, noise_log_weight=one.noise_log_weight * share)
        if isinstance(one, ReplyNoiseParameters)
        else one
        for one in public.parameters
    )
    return replace(public, parameters=parameters)


def _mean(said: list[_Reply]) -> _Reply:
    rows = {name: torch.stack([getattr(one, name) for one in said]) for name in said[0].per_stream}
    means: dict[str, Any] = {name: values.double().mean(0).to(values.dtype) for name, values in rows.items()}
    return replace(said[0], **means)
