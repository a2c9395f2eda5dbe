"""Reading a text whose tokens were drawn anew in their places."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.text_context import Context
from smd_research.core.guess import Guess, Spent
from smd_research.mechanisms.rewriting.masked import MaskedRewriter

_RANKED = 10


def read_masked(
    rewriter: MaskedRewriter,
    language: Context,
    sent: Sequence[int],
    before: Sequence[int],
    shortlist: int,
    beam: int,
    sweeps: int,
) -> Guess:
    """Decode left to right, ``argmax sum_t log p(y_t | x) + log p(x_t | x_<t)``, each time in the context found last.

    The law of a place looks at the whole text; what stands around the candidate is taken from the last sweep, at first
    from what was sent.

    Args:
        rewriter: the public mechanism.
        language: the prior.
        sent: what was seen ``[n]``.
        before: public tokens that the language model reads first.
        shortlist: tokens weighed at each place, what was seen there among them.
        beam: readings carried along.
        sweeps: how often.
    """
    context = torch.tensor([list(sent)], device=rewriter.reader.bias.device)
    spent = 0
    for _ in range(sweeps):
        readings, ranked, weighed = _sweep(rewriter, language, sent, context, before, shortlist, beam)
        context, spent = readings[:1], spent + weighed
    return Guess(tuple(context[0].tolist()), ranked, spent=Spent(candidates=spent))


def _sweep(
    rewriter: MaskedRewriter,
    language: Context,
    sent: Sequence[int],
    context: Tensor,
    before: Sequence[int],
    shortlist: int,
    beam: int,
) -> tuple[Tensor, tuple[tuple[int, ...], ...], int]:
    """Readings ``[beam, n]``, best first, the ranking of each place, and candidates weighed."""
    model, prior = language.reader(before), language.opening[None]
    drawn, device, weighed = set(rewriter.drawn(sent)), context.device, 0
    barred = rewriter.softmax.barred.to(device)
    readings, totals = context[:, :0], torch.zeros(1, dtype=torch.float64, device=device)
    ranked: list[list[int]] = []
    for place, seen in enumerate(sent):
        if place in drawn:
            tokens = _likely(totals[:, None] + prior.index_fill(1, barred, -torch.inf), seen, shortlist)
            evidence = _evidence(rewriter, context, place, seen, tokens)
            weighed += len(tokens)
        else:
            tokens, evidence = torch.tensor([seen], device=device), torch.zeros(1, dtype=torch.float64, device=device)
        joint = totals[:, None] + prior[:, tokens].double() + evidence
        best = joint.flatten().topk(min(beam, joint.numel()))
        parents, chosen = best.indices // len(tokens), tokens[best.indices % len(tokens)]
        readings, totals = torch.cat([readings[parents], chosen[:, None]], 1), best.values
        ranked.append(tokens[joint.logsumexp(0).argsort(descending=True)][:_RANKED].tolist())
        if place + 1 < len(sent):
            if place or before:
                model.select(parents)
            prior = language.following(chosen, model.step(chosen))
    found = readings[0].tolist()
    return readings, tuple(tuple(dict.fromkeys([f, *r])) for f, r in zip(found, ranked, strict=True)), weighed


def _likely(joint: Tensor, seen: int, shortlist: int) -> Tensor:
    """The likeliest next tokens over all readings ``joint [readings, vocab]``, and the one that was seen."""
    expected = joint.amax(0).topk(min(shortlist, joint.shape[1])).indices.tolist()
    return torch.tensor(list(dict.fromkeys([seen, *expected]))[:shortlist], device=joint.device)


def _evidence(rewriter: MaskedRewriter, context: Tensor, place: int, seen: int, tokens: Tensor) -> Tensor:
    """``log p(seen | text)`` for each of some tokens in a place of the text ``[tokens]`` (float64)."""
    texts = context.expand(len(tokens), -1).clone()
    texts[:, place] = tokens
    laws = rewriter.softmax.log_law(rewriter.read(texts, torch.tensor([place]))[:, 0])
    return laws[:, seen]
