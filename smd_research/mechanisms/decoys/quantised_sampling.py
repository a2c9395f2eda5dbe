"""Greedy Quantized Sampling: fakes that a language model finds about as likely as the secret.

Prompt Obfuscation (arXiv 2409.19134 v1-v4, dropped in v5) hides an authentic prompt among ``lambda`` virtual ones whose
secret spans are replaced by fakes. A fake is drawn token by token: at each step only tokens whose conditional
probability falls into the same *bin* as the secret's may be taken. The bins of the released proof of concept are

- ``abs``: ``floor(p* N)/N + 1e-3 <= P < floor(p* N)/N + 1e-3 + 1/N`` with ``N = 1/epsilon``;
- ``rel``: ``|P/p* - 1| <= epsilon``, centred at the secret's own probability ``p*``.

The third is this lab's:

- ``grid``: ``P`` and ``p*`` lie in the same cell of the public grid ``((1-epsilon)^(k+1), (1-epsilon)^k]``.

What is reconstructed. No text of v1-v4 with the theorem and its proof could be read; the bins, the temperature and the
defaults are those of the released code, the claimed bound ``1/(lambda+1) + epsilon`` is second-hand, and the analysis
below is ours. Deliberately unlike the released code: fakes have exactly as many tokens as the secret (no early stop),
the spans of one stream are drawn jointly (a later span is conditioned on the stream's own earlier fakes), nothing is
tokenised again, and there is no final sorting by closeness, which would point at the secret. The model reads the text
before a span, as a causal model does; the instruction that the released code wraps around the text is left out.

How a span is drawn. In each stream's own context ``tries`` paths are drawn token by token from the secret's bins
(``abs`` and ``rel``: uniformly, as released; ``grid``: in proportion to probability); a path that finds an empty bin is
dead. Each fake is a live path of its context, written as the tokenizer writes its text, that neither the secret nor
another stream holds; ``grid`` takes paths in proportion to the mass of their bins (sampling importance resampling), so
that a fake is a draw from the model's own law, given that it shares the secret's cells. Where a stream finds none, the
whole span is drawn again with wider bins (``Quantiser.epsilons``), all streams alike; when the widest are too poor the
prompt is refused.

What the attacker can compute (Kerckhoffs). Let ``c_0 .. c_lambda`` be the virtual prompts in the order of their
streams, the real index ``r`` uniform. With ``p`` the prior of a secret and ``Q(. | c_r)`` the law above,

    P(r | c_0 .. c_lambda) = p(c_r) Q(c without c_r | c_r) / sum over r' of the same.

Hence, when the secret itself is drawn from ``p`` (``draw_secret``; a refused one is drawn anew, which leaves the
formula as it is), *no attacker whatever* succeeds more often on average than ``E[max_r P(r | c)]``, and the one that
takes the largest attains it: the testable form of ``success <= max posterior``, with ``eps_eff = max posterior -
1/(lambda+1)``. ``weigh`` evaluates both factors. ``Q`` is a product of draws,

    Q(c without c_r | c_r) = prod over b != r of R_b(c_b) / (1 - R_b(c_r) - sum over earlier b' of R_b(c_b')),

where ``R_b`` is the law of one path in stream ``b``'s context and ``c_r``'s bins. It is exact for spans of one token
without widening. Otherwise three things are approximated: the share of paths that die is taken to be the same for
every ``r``; so is the chance that narrower bins failed; and for ``grid`` ``R_b = p_b / p_b(class)``, the limit of many
tries, with the class mass ``p_b(class)`` estimated from the drawn paths (by ``sample``) or from the prompts at hand (by
``weigh``: the mean of ``1/mass`` over paths of the class is ``1/p(class)``).

What the bins give. A bound that looks at the prior only: where every token has a ratio of at least ``1 - epsilon``
to the secret's, ``pi_real <= 1/(1 + lambda (1-epsilon)^T)`` for ``T`` secret tokens (``rel``, ``grid``; not ``abs``,
whose bin holds tokens however small their probability). That is all an attacker knows only where ``Q`` does not depend
on ``r``. With ``grid`` everyone in a cell sees the same cell: secret and fakes are independent draws of one law given
their cells, and the posterior is flat at *any* width, up to repetitions and, from the second span on, to the class
masses of different contexts. With ``rel`` the secret sits in the middle of its fakes and a candidate at the edge cannot
be the secret: the attacker who knows the sampler exceeds the bound.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import PromptError, RefusedError
from smd_research.data.prompts import TokenSpan
from smd_research.mechanisms.decoys.decoy_law import LEAST, StreamEvidence, contexts, judge, log_laws
from smd_research.mechanisms.decoys.prompt_reader import PromptReader
from smd_research.mechanisms.decoys.quantiser import Quantiser
from smd_research.models.bundle import Bundle

_DRAWS = 1000


@dataclass(frozen=True, repr=False)
class Decoys:
    """An authentic prompt and its fakes.

    Attributes:
        ids: the virtual prompts ``[fakes + 1, n]``, the authentic one first, the fakes in the order drawn.
        weights: what the sampler's own model says of them.
        widened: for each span how many steps epsilon was widened by; None where nothing was drawn.
    """

    ids: Tensor
    weights: StreamEvidence
    widened: tuple[int | None, ...]


def sample(
    bundle: Bundle,
    ids: Sequence[int],
    spans: Sequence[TokenSpan],
    quantiser: Quantiser,
    rng: np.random.Generator,
    known: Mapping[int, Sequence[Sequence[int]]] | None = None,
) -> Decoys:
    """Draw the virtual prompts of an authentic one.

    A span that repeats an earlier one of the prompt takes that one's fakes.

    Args:
        bundle: the sampler's model.
        ids: the authentic prompt ``[n]``.
        spans: its secrets, in order, not overlapping.
        quantiser: how to draw.
        rng: the only randomness.
        known: for some spans (by index) the fakes to use again, one for each stream.

    Raises:
        PromptError: without a span, for overlapping spans or ones that hold special tokens.
        RefusedError: where even the widest bin holds too few fakes.
    """
    check_spans(bundle, ids, spans)
    forced = dict(known or {})
    rows = torch.tensor([list(ids)] * (quantiser.fakes + 1), device=bundle.device)
    reader = PromptReader(bundle, quantiser.temperature, rows, spans[0].start)
    # a prompt that the tokenizer would not have written gives no reason to ask it of the fakes
    spelling = bundle if quantiser.canonical and bool(canonical(bundle, rows[:1])) else None
    every = tuple(range(quantiser.widenings + 1))
    weights, widened = StreamEvidence.none(rows), []
    for index, span in enumerate(spans):
        here, source = slice(span.start, span.end), repeats(rows[:1], spans, index)
        level = log_class = None
        reader.read_to(span.start)
        if source is not None:
            rows[:, here] = rows[:, spans[source].start : spans[source].end]
        elif index in forced:
            rows[1:, here] = torch.tensor(forced[index], device=bundle.device)
        else:
            level, rows[1:, here], log_class = _draw(reader, span, quantiser, spelling, rng)
        levels = (level,) if level is not None else () if source is not None else every
        judged = judge(reader, span, quantiser, levels, log_class)
        # fakes drawn in another context may lie in none of this one's bins: then only the prior speaks
        weights += judged if judged.log_law[0].isfinite() else StreamEvidence(judged.log_prior, weights.log_law * 0)
        widened.append(level)
    return Decoys(rows, weights, tuple(widened))


def weigh(bundle: Bundle, prompts: Tensor, spans: Sequence[TokenSpan], quantiser: Quantiser) -> StreamEvidence:
    """Weighs each virtual prompt by the sampler's model and the sampler's law: the strongest attack on the fakes.

    The attacker does not know how far a bin was widened: the law is summed over the steps. A span that repeats an
    earlier one in every stream was not drawn.

    Args:
        bundle: the sampler's model, or another that an attacker takes for it.
        prompts: the virtual prompts in the order of their streams ``[fakes + 1, n]``, alike outside the spans.
        spans: where they differ.
        quantiser: how the fakes were drawn.
    """
    return weigh_by_widenings(bundle, prompts, spans, quantiser)[-1]


def weigh_by_widenings(
    bundle: Bundle, prompts: Tensor, spans: Sequence[TokenSpan], quantiser: Quantiser
) -> list[StreamEvidence]:
    """The same for a sampler that widens its bins at most ``0 .. widenings`` times, from one reading of the prompts."""
    reader = PromptReader(bundle, quantiser.temperature, prompts, spans[0].start)
    weights = [StreamEvidence.none(prompts) for _ in quantiser.epsilons]
    every = tuple(range(quantiser.widenings + 1))
    for index, span in enumerate(spans):
        reader.read_to(span.start)
        log_prior, laws = log_laws(reader, span, quantiser, every if repeats(prompts, spans, index) is None else ())
        for steps in every:
            log_law = torch.logsumexp(laws[: steps + 1], dim=0) if len(laws) else torch.zeros_like(log_prior)
            weights[steps] += StreamEvidence(log_prior, log_law)
    return weights


def draw_secret(
    bundle: Bundle,
    ids: Sequence[int],
    spans: Sequence[TokenSpan],
    quantiser: Quantiser,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Replace the spans by secrets drawn from the sampler's own model, in order: the prior ``p`` of the analysis.

    Returns:
        The prompt with other secrets ``[n]``. Where ``sample`` refuses it, draw again.

    Raises:
        PromptError: as ``sample``; and when no draw is one that the tokenizer would write.
    """
    check_spans(bundle, ids, spans)
    for _ in range(_DRAWS):
        rows = torch.tensor([list(ids)], device=bundle.device)
        reader = PromptReader(bundle, quantiser.temperature, rows, spans[0].start)
        for span in spans:
            for position in range(span.start, span.end):
                reader.read_to(position)
                rows[0, position] = _take(reader.log_p().exp(), rows.new_zeros(1), rng)[0]
        if not quantiser.canonical or bool(canonical(bundle, rows)):
            return tuple(rows[0].tolist())
    raise PromptError(f"none of {_DRAWS} secrets drawn from the model is one its tokenizer would write")


def canonical(bundle: Bundle, rows: Tensor) -> Tensor:
    """Which prompts ``rows [rows, n]`` the tokenizer itself writes for their text, as ``[rows]``."""
    plain = [[token for token in row if token not in bundle.special_ids] for row in rows.tolist()]
    texts = [bundle.decode(row) for row in plain]
    again = bundle.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([one == two for one, two in zip(plain, again, strict=True)], device=rows.device)


def check_spans(bundle: Bundle, ids: Sequence[int], spans: Sequence[TokenSpan]) -> None:
    """Checks that fakes can be drawn.

    Raises:
        PromptError: without a span, for spans that overlap or leave the prompt, or for special tokens in one.
    """
    if not spans:
        raise PromptError("the prompt marks no secret: mark one, or use a defense that hides all of it (defense=smd)")
    ends = [0, *(span.end for span in spans)]
    for end, span in zip(ends, spans, strict=False):
        if not end <= span.start < span.end <= len(ids):
            raise PromptError(f"secret spans must be in order and apart, within {len(ids)} tokens: see {span}")
        if any(token in bundle.special_ids for token in ids[span.start : span.end]):
            raise PromptError(f"the secret at tokens {span.start}..{span.end} holds a special token: mark text only")


def repeats(rows: Tensor, spans: Sequence[TokenSpan], index: int) -> int | None:
    """The first earlier span whose tokens a span repeats in every row ``[rows, n]``, if any."""
    this = rows[:, spans[index].start : spans[index].end]
    for earlier in range(index):
        other = rows[:, spans[earlier].start : spans[earlier].end]
        if other.shape == this.shape and torch.equal(other, this):
            return earlier
    return None


def _take(weight: Tensor, rows: Tensor, rng: np.random.Generator) -> Tensor:
    """One entry of each of the ``rows [n]`` of ``weight``, in proportion to its weight (rows of zeros: any)."""
    total = weight.cumsum(-1)[rows]
    point = torch.as_tensor(rng.random((len(rows), 1)), device=weight.device) * total[:, -1:]
    return torch.searchsorted(total, point, right=True)[:, 0].clamp(max=weight.shape[1] - 1)


def _draw(
    reader: PromptReader, span: TokenSpan, quantiser: Quantiser, spelling: Bundle | None, rng: np.random.Generator
) -> tuple[int, Tensor, Tensor]:
    """Steps of widening, a fake for each stream but the first ``[fakes, tokens]``, and the streams' class masses.

    A class mass is the log probability ``[streams]`` that the model's own path stays in the secret's bins, estimated
    from the paths drawn in the stream's context.

    Raises:
        RefusedError: where even the widest bin holds too few.
    """
    rows = reader.rows
    for level in range(quantiser.widenings + 1):
        streams, tried, log_mass = _attempts(reader, span, quantiser, level, rng)
        if spelling is not None:
            log_mass = log_mass.masked_fill(~canonical(spelling, tried), -math.inf)
        paths = tried[:, span.start : span.end]
        # paths in random order; on the grid in proportion to their bins' mass, which makes them the model's own
        favour = log_mass if quantiser.metric == "grid" else log_mass.isfinite().log()
        order = (favour.cpu() + torch.from_numpy(rng.gumbel(size=len(favour)))).argsort(descending=True)
        kept = order[log_mass.cpu()[order].isfinite()].to(streams.device)
        found = _pick(streams[kept], paths[kept], rows, span)
        if found is not None:
            return level, found, _class_masses(contexts(rows, span), streams, log_mass)
    raise RefusedError(
        f"a secret of type {span.type} ({span.end - span.start} tokens) has fewer than {quantiser.fakes} fakes even at "
        f"epsilon={quantiser.epsilons[-1]:.3g}: lower fakes=, or raise epsilon=, tries= or widenings="
    )


def _attempts(
    reader: PromptReader, span: TokenSpan, quantiser: Quantiser, level: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw ``tries`` paths for each stream in its context.

    Returns:
        Of each path its stream ``[attempts]``, its prompt ``[attempts, n]``, and the log of the product of the
        probability masses of its bins ``[attempts]``: minus infinity where a step found no token.
    """
    rows, context = reader.rows, contexts(reader.rows, span)
    streams = torch.arange(len(rows), device=rows.device).repeat(quantiser.tries)
    # the secret and the paths, and which branch of the tree each stands on: what they share is read once
    source = torch.cat([streams.new_zeros(1), streams])
    paths = rows[source].clone()
    branch, first = _groups(context[source][None])
    tree = reader.fork(source[first], paths[first])
    log_mass = torch.zeros(len(streams), dtype=torch.float64, device=rows.device)
    for position in range(span.start, span.end):
        tree.read_to(position)
        log_p = tree.log_p()
        low, high = (edge[level] for edge in quantiser.bins(log_p[branch[0], rows[0, position]][None]))
        inside = (log_p > low) & (log_p <= high)
        log_mass += torch.where(inside, log_p.exp(), 0.0).sum(-1).log()[branch[1:]]
        paths[1:, position] = _take(torch.where(inside, quantiser.weight(log_p), 0.0), branch[1:], rng)
        living = log_mass.isfinite()
        if _too_few(context, streams[living]):
            rng.random((span.end - position - 1, len(streams)))  # what the rest of the way would have drawn
            return streams, paths[1:], log_mass.fill_(-math.inf)
        dead = torch.cat([living.new_zeros(1), ~living])
        branch, paths = branch.where(~dead, branch[0]), paths.where(~dead[:, None], rows[0])
        grown, first = _groups(torch.stack([branch, paths[:, position]]))
        tree, branch = tree.fork(branch[first], paths[first]), grown
    return streams, paths[1:], log_mass


def _groups(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Which columns of ``keys [k, paths]`` are alike: the group of each ``[paths]``, and the first of each group."""
    group = torch.unique(keys, dim=1, return_inverse=True)[1]
    places = torch.arange(len(group), device=group.device)
    first = group.new_full((int(group.max()) + 1,), len(group)).scatter_reduce(0, group, places, "amin")
    return group, first


def _too_few(context: Tensor, living: Tensor) -> bool:
    """Whether the streams of living paths leave a stream but the first without one, by their contexts ``[streams]``."""
    wanted, held = (torch.bincount(context[of], minlength=len(context)) for of in (slice(1, None), living))
    return bool((held < wanted).any())


def _pick(streams: Tensor, paths: Tensor, rows: Tensor, span: TokenSpan) -> Tensor | None:
    """For each stream but the first the first path in its context that no other stream holds, if there are enough."""
    before = contexts(rows, span).tolist()
    used = {tuple(rows[0, span.start : span.end].tolist())}
    by_context: dict[int, list[tuple[int, ...]]] = {}
    for stream, path in zip(streams.tolist(), paths.tolist(), strict=True):
        by_context.setdefault(before[stream], []).append(tuple(path))
    chosen = []
    for stream in range(1, len(rows)):
        found = next((path for path in by_context.get(before[stream], ()) if path not in used), None)
        if found is None:
            return None
        used.add(found)
        chosen.append(found)
    return torch.tensor(chosen, device=rows.device)


def _class_masses(context: Tensor, streams: Tensor, log_mass: Tensor) -> Tensor:
    """Log of the mean mass of the paths drawn in each stream's context ``[streams]``."""
    mean = torch.zeros(len(context), dtype=torch.float64, device=context.device)
    mean.index_add_(0, context[streams], log_mass.exp())
    drawn = torch.bincount(context[streams], minlength=len(context))
    return (mean / drawn.clamp(min=1))[context].clamp(min=LEAST).log()
