"""The law of fakes: how well each of several prompts explains all the others as its fakes (``quantised_sampling``)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.data.prompts import TokenSpan
from smd_research.mechanisms.decoys.prompt_reader import PromptReader
from smd_research.mechanisms.decoys.quantiser import Quantiser

LEAST = 1e-9


@dataclass(frozen=True, repr=False)
class StreamEvidence:
    """What an attacker who knows the sampler can say about each virtual prompt being the authentic one.

    Attributes:
        log_prior: log probability of the spans' tokens under the sampler's model ``[streams]``.
        log_law: log probability that the sampler draws all the others from this one ``[streams]``.
    """

    log_prior: Tensor
    log_law: Tensor

    @property
    def posterior(self) -> Tensor:
        """Probability of each stream to be the authentic one ``[streams]``."""
        return torch.softmax(self.log_prior + self.log_law, dim=0)

    @classmethod
    def none(cls, rows: Tensor) -> "StreamEvidence":
        """Before any span of ``rows [streams, n]``."""
        return cls(*torch.zeros(2, len(rows), dtype=torch.float64, device=rows.device))

    def __add__(self, other: "StreamEvidence") -> "StreamEvidence":
        return StreamEvidence(self.log_prior + other.log_prior, self.log_law + other.log_law)

    @property
    def eps_eff(self) -> float:
        """``max posterior - 1/(lambda+1)``."""
        return float(self.posterior.max()) - 1 / len(self.log_prior)


def contexts(rows: Tensor, span: TokenSpan) -> Tensor:
    """A number for what stands before a span, for each row ``[streams]``."""
    if span.start == 0:
        return torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    numbers: Tensor = torch.unique(rows[:, : span.start], dim=0, return_inverse=True)[1]
    return numbers


def judge(
    reader: PromptReader, span: TokenSpan, quantiser: Quantiser, levels: Sequence[int], log_class: Tensor | None = None
) -> StreamEvidence:
    """Weighs each stream as the authentic one by one span of the reader's rows.

    Args:
        reader: the streams.
        span: where.
        quantiser: how fakes are drawn.
        levels: steps of widening that they may have been drawn at; none where they were not drawn here.
        log_class: class masses ``[streams]``, where known.
    """
    log_prior, laws = log_laws(reader, span, quantiser, levels, log_class)
    return StreamEvidence(log_prior, torch.logsumexp(laws, dim=0) if levels else torch.zeros_like(log_prior))


def log_laws(
    reader: PromptReader, span: TokenSpan, quantiser: Quantiser, levels: Sequence[int], log_class: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What :func:`judge` sums up: log priors ``[streams]``, and log laws of each level alone ``[levels, streams]``."""
    count = len(reader.rows)
    alike = bool((contexts(reader.rows, span) == 0).all())
    log_prior = torch.zeros(count, dtype=torch.float64, device=reader.rows.device)
    # log probability of stream b's path when drawn in the bins of hypothesis r, and the mass of these: [levels, r, b]
    paths, masses = torch.zeros(2, len(levels), count, count, dtype=torch.float64, device=reader.rows.device)
    for position in range(span.start, span.end):
        reader.read_to(position)
        log_p = reader.log_p()
        own = log_p.gather(1, reader.rows[:, position, None])[:, 0]
        log_prior += own
        if levels:
            step, mass = _log_steps(quantiser, levels, log_p, own)
            paths, masses = paths + step, masses + mass
    if levels and quantiser.metric == "grid":
        paths = paths + masses - (_log_class(masses, alike) if log_class is None else log_class)
    return log_prior, _log_law(paths, alike)


def _log_steps(quantiser: Quantiser, levels: Sequence[int], log_p: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Log probability of every stream's token within every hypothesis' bin, and the bin's mass: ``[levels, r, b]``."""
    low, high = (edge[list(levels)] for edge in quantiser.bins(own))
    ordered = log_p.sort(dim=-1).values
    ends = [
        torch.searchsorted(ordered, edge.flatten().expand(len(log_p), -1).contiguous(), right=True)
        for edge in (low, high)
    ]

    def held(weight: Tensor) -> Tensor:
        total = torch.nn.functional.pad(weight.cumsum(-1), (1, 0))
        below, upto = (total.gather(1, end) for end in ends)
        return (upto - below).view(len(log_p), *low.shape).permute(1, 2, 0).log()

    inside = (own > low[..., None]) & (own <= high[..., None])
    step = quantiser.weight(own).log() - held(quantiser.weight(ordered))
    return torch.where(inside, step, -math.inf), torch.where(inside, held(ordered.exp()), 0.0)


def _log_class(masses: Tensor, alike: bool) -> Tensor:
    """Log probability that the model's own path stays in a hypothesis' bins ``[levels, r, b]``.

    For paths of that law the mean of one over the mass of their bins is one over this probability.
    """
    if not alike:
        return masses
    return -torch.logsumexp(-masses, dim=-1, keepdim=True) + math.log(masses.shape[-1])


def _log_law(paths: Tensor, alike: bool) -> Tensor:
    """Log probability that all other streams' paths are drawn from each stream's bins ``[levels, r]``."""
    count = paths.shape[-1]
    itself = torch.eye(count, dtype=torch.bool, device=paths.device)
    law = paths.masked_fill(itself, 0.0).sum(-1)
    if not alike:
        return law
    # a path that the secret or an earlier fake holds is not taken again
    p = paths.exp()
    others = p.masked_fill(itself, 0.0)
    gone = others.cumsum(-1) - others + p.diagonal(dim1=1, dim2=2)[..., None]
    left = (1 - gone).clamp(min=LEAST).log().masked_fill(itself, 0.0)
    return law - left.sum(-1)
