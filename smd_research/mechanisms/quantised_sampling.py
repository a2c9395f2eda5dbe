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

What the bins give. The notes' bound looks at the prior only: where every token has a ratio of at least ``1 - epsilon``
to the secret's, ``pi_real <= 1/(1 + lambda (1-epsilon)^T)`` for ``T`` secret tokens (``rel``, ``grid``; not ``abs``,
whose bin holds tokens however small their probability). That is all an attacker knows only where ``Q`` does not depend
on ``r``. With ``grid`` everyone in a cell sees the same cell: secret and fakes are independent draws of one law given
their cells, and the posterior is flat at *any* width, up to repetitions and, from the second span on, to the class
masses of different contexts. With ``rel`` the secret sits in the middle of its fakes and a candidate at the edge cannot
be the secret: the attacker who knows the sampler exceeds the bound.
"""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import ConfigError, PromptError
from smd_research.data.prompts import TokenSpan
from smd_research.models.branches import Branches
from smd_research.models.bundle import Bundle

Metric = Literal["grid", "rel", "abs"]
METRICS: tuple[str, ...] = get_args(Metric)
ABS_OFFSET = 1e-3
_ROUNDING = 1e-9
_LEAST = 1e-9
_DRAWS = 1000


@dataclass(frozen=True)
class Quantiser:
    """How fakes are drawn; all of it is public.

    Attributes:
        metric: ``grid``, ``rel`` or ``abs``: which bin a token has to share with the secret's.
        epsilon: width of the bin.
        temperature: of the model that judges.
        fakes: how many (the paper's lambda).
        tries: paths drawn for each fake before epsilon is widened.
        widenings: how many steps epsilon may be widened by.
        canonical: take only fakes that the tokenizer itself would write; others are known as fakes by reading the text
            again, unless secrets too are drawn token by token.

    Raises:
        ConfigError: for an unknown metric or a value out of range.
    """

    metric: Metric = "grid"
    epsilon: float = 0.1
    temperature: float = 1.0
    fakes: int = 7
    tries: int = 16
    widenings: int = 4
    canonical: bool = True

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(f"metric={self.metric} is unknown: use one of {', '.join(METRICS)}")
        if not 0 < self.epsilon < 1:
            raise ConfigError(f"epsilon={self.epsilon:g} is out of range: it lies between 0 and 1")
        if self.temperature <= 0:
            raise ConfigError(f"temperature={self.temperature:g} is out of range: it must be positive")
        if self.fakes < 1 or self.tries < 1 or self.widenings < 0:
            raise ConfigError(
                f"fakes={self.fakes}, tries={self.tries}, widenings={self.widenings}: at least 1, 1 and 0"
            )

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Epsilon after ``0 .. widenings`` steps.

        ``abs`` doubles the width of the bin, up to 1. For ``rel`` and ``grid`` a step squares the least ratio
        ``1 - epsilon`` of a fake's probability to the secret's (on the grid: two neighbouring cells become one).
        """
        steps = range(self.widenings + 1)
        if self.metric == "abs":
            return tuple(min(self.epsilon * 2**step, 1.0) for step in steps)
        return tuple(1 - (1 - self.epsilon) ** (2**step) for step in steps)

    def bins(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """Bins of the secret's tokens: log probabilities ``(low, high]``, each ``[widenings + 1, refs]``.

        Args:
            log_p: the secret's conditional log probabilities ``[refs]`` (fp64).
        """
        epsilon = torch.tensor(self.epsilons, dtype=log_p.dtype, device=log_p.device)[:, None]
        if self.metric == "abs":
            low = torch.floor(log_p.exp() / epsilon) * epsilon + ABS_OFFSET
            # the released bin is closed below and open above
            return low.log() - _ROUNDING, (low + epsilon).log() - _ROUNDING
        if self.metric == "rel":
            return log_p + (-epsilon).log1p() - _ROUNDING, log_p + epsilon.log1p() + _ROUNDING
        width = (-epsilon).log1p()
        cell = torch.floor(log_p.clamp(max=0) / width)
        return (cell + 1) * width, cell * width

    def weight(self, log_p: Tensor) -> Tensor:
        """Weights of tokens within a bin, given their log probabilities: their probability for ``grid``, else equal."""
        return log_p.exp() if self.metric == "grid" else torch.ones_like(log_p)


def claimed_bound(fakes: int, epsilon: float) -> float:
    """The success rate that PO is said to cap an attacker at: ``1/(lambda+1) + epsilon``."""
    return min(1 / (fakes + 1) + epsilon, 1.0)


def ratio_bound(fakes: int, epsilon: float, tokens: int) -> float:
    """The prior's posterior of the secret where every token's ratio is at least ``1 - epsilon``."""
    return 1 / (1 + fakes * (1 - epsilon) ** tokens)


@dataclass(frozen=True, repr=False)
class Weights:
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

    @property
    def prior_posterior(self) -> Tensor:
        """The same for an attacker who does not know how fakes are drawn: the prior alone ``[streams]``."""
        return torch.softmax(self.log_prior, dim=0)

    @classmethod
    def none(cls, rows: Tensor) -> "Weights":
        """Before any span of ``rows [streams, n]``."""
        return cls(*torch.zeros(2, len(rows), dtype=torch.float64, device=rows.device))

    def __add__(self, other: "Weights") -> "Weights":
        return Weights(self.log_prior + other.log_prior, self.log_law + other.log_law)

    @property
    def eps_eff(self) -> float:
        """``max posterior - 1/(lambda+1)``."""
        return float(self.posterior.max()) - 1 / len(self.log_prior)


@dataclass(frozen=True, repr=False)
class Decoys:
    """An authentic prompt and its fakes.

    Attributes:
        ids: the virtual prompts ``[fakes + 1, n]``, the authentic one first, the fakes in the order drawn.
        weights: what the sampler's own model says of them.
        widened: for each span how many steps epsilon was widened by; None where nothing was drawn.
    """

    ids: Tensor
    weights: Weights
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
        PromptError: without a span, for overlapping spans or ones that hold special tokens, or where even the widest
            bin holds too few fakes.
    """
    check_spans(bundle, ids, spans)
    forced = dict(known or {})
    rows = torch.tensor([list(ids)] * (quantiser.fakes + 1), device=bundle.device)
    reader = _Reader(bundle, quantiser.temperature, rows, spans[0].start)
    # a prompt that the tokenizer would not have written gives no reason to ask it of the fakes
    spelling = bundle if quantiser.canonical and bool(canonical(bundle, rows[:1])) else None
    every = tuple(range(quantiser.widenings + 1))
    weights, widened = Weights.none(rows), []
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
        judged = _judge(reader, span, quantiser, levels, log_class)
        # fakes drawn in another context may lie in none of this one's bins: then only the prior speaks
        weights += judged if judged.log_law[0].isfinite() else Weights(judged.log_prior, weights.log_law * 0)
        widened.append(level)
    return Decoys(rows, weights, tuple(widened))


def weigh(bundle: Bundle, prompts: Tensor, spans: Sequence[TokenSpan], quantiser: Quantiser) -> Weights:
    """What the sampler's model and the sampler's law say of each virtual prompt: the strongest attack on the fakes.

    The attacker does not know how far a bin was widened: the law is summed over the steps. A span that repeats an
    earlier one in every stream was not drawn.

    Args:
        bundle: the sampler's model, or another that an attacker takes for it.
        prompts: the virtual prompts in the order of their streams ``[fakes + 1, n]``, alike outside the spans.
        spans: where they differ.
        quantiser: how the fakes were drawn.
    """
    reader = _Reader(bundle, quantiser.temperature, prompts, spans[0].start)
    weights = Weights.none(prompts)
    every = tuple(range(quantiser.widenings + 1))
    for index, span in enumerate(spans):
        reader.read_to(span.start)
        weights += _judge(reader, span, quantiser, every if repeats(prompts, spans, index) is None else ())
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
        PromptError: as ``sample``, but for the bins; and when no draw is one that the tokenizer would write.
    """
    check_spans(bundle, ids, spans)
    for _ in range(_DRAWS):
        rows = torch.tensor([list(ids)], device=bundle.device)
        reader = _Reader(bundle, quantiser.temperature, rows, spans[0].start)
        for span in spans:
            for position in range(span.start, span.end):
                reader.read_to(position)
                rows[0, position] = _take(reader.log_p().exp(), rng)[0]
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
    """Refuse what no fakes can be drawn for.

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


class _Reader:
    """The sampler's model, reading virtual prompts ``rows [streams, n]`` side by side from the first secret on."""

    def __init__(self, bundle: Bundle, temperature: float, rows: Tensor, start: int) -> None:
        self.rows = rows
        self._temperature = temperature
        self._barred = torch.tensor(sorted(bundle.special_ids), dtype=torch.long, device=rows.device)
        self._branches = Branches(bundle, rows[0, :start].tolist() or _beginning(bundle), len(rows))
        self._read = start

    def read_to(self, position: int) -> None:
        """Read the tokens before ``position``."""
        if position > self._read:
            self._branches.feed(self.rows[:, self._read : position])
            self._read = position

    def log_p(self) -> Tensor:
        """Log probabilities ``[streams, vocab]`` (fp64) of what comes next, special tokens barred."""
        logits = self._branches.logits.double() / self._temperature
        return torch.log_softmax(logits.index_fill(-1, self._barred, -math.inf), dim=-1)

    def fork(self, index: Tensor, rows: Tensor) -> "_Reader":
        """Read on with ``rows [count, n]``, each of which goes on from the stream ``index [count]``."""
        twin = copy(self)
        twin.rows, twin._branches = rows, self._branches.fork(index)
        return twin


def _beginning(bundle: Bundle) -> list[int]:
    """What a model reads before a text that begins with a secret."""
    token = bundle.tokenizer.bos_token_id
    token = bundle.end_id if token is None else token
    if token is None:
        raise PromptError("the prompt begins with a secret, and the tokenizer has no token to begin a text with")
    return [token]


def _take(weight: Tensor, rng: np.random.Generator) -> Tensor:
    """One entry of each row ``[rows, entries]``, with probability proportional to its weight (rows of zeros: any)."""
    total = weight.cumsum(-1)
    point = torch.as_tensor(rng.random((len(weight), 1)), device=weight.device) * total[:, -1:]
    return torch.searchsorted(total, point, right=True)[:, 0].clamp(max=weight.shape[1] - 1)


def _draw(
    reader: _Reader, span: TokenSpan, quantiser: Quantiser, spelling: Bundle | None, rng: np.random.Generator
) -> tuple[int, Tensor, Tensor]:
    """Steps of widening, a fake for each stream but the first ``[fakes, tokens]``, and the streams' class masses.

    A class mass is the log probability ``[streams]`` that the model's own path stays in the secret's bins, estimated
    from the paths drawn in the stream's context.

    Raises:
        PromptError: where even the widest bin holds too few.
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
            return level, found, _class_masses(_contexts(rows, span), streams, log_mass)
    raise PromptError(
        f"a secret of type {span.type} ({span.end - span.start} tokens) has fewer than {quantiser.fakes} fakes even at "
        f"epsilon={quantiser.epsilons[-1]:.3g}: lower fakes=, or raise epsilon=, tries= or widenings="
    )


def _attempts(
    reader: _Reader, span: TokenSpan, quantiser: Quantiser, level: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw ``tries`` paths for each stream in its context.

    Returns:
        Of each path its stream ``[attempts]``, its prompt ``[attempts, n]``, and the log of the product of the
        probability masses of its bins ``[attempts]``: minus infinity where a step found no token.
    """
    rows = reader.rows
    streams = torch.arange(len(rows), device=rows.device).repeat(quantiser.tries)
    index = torch.cat([streams.new_zeros(1), streams])
    tried = reader.fork(index, rows[index].clone())
    log_mass = torch.zeros(len(streams), dtype=torch.float64, device=rows.device)
    for position in range(span.start, span.end):
        tried.read_to(position)
        log_p = tried.log_p()
        low, high = (edge[level] for edge in quantiser.bins(log_p[0, rows[0, position]][None]))
        inside = ((log_p > low) & (log_p <= high))[1:]
        log_mass += torch.where(inside, log_p[1:].exp(), 0.0).sum(-1).log()
        tried.rows[1:, position] = _take(torch.where(inside, quantiser.weight(log_p[1:]), 0.0), rng)
    return streams, tried.rows[1:], log_mass


def _pick(streams: Tensor, paths: Tensor, rows: Tensor, span: TokenSpan) -> Tensor | None:
    """For each stream but the first the first path in its context that no other stream holds, if there are enough."""
    contexts = _contexts(rows, span).tolist()
    used = {tuple(rows[0, span.start : span.end].tolist())}
    by_context: dict[int, list[tuple[int, ...]]] = {}
    for stream, path in zip(streams.tolist(), paths.tolist(), strict=True):
        by_context.setdefault(contexts[stream], []).append(tuple(path))
    chosen = []
    for stream in range(1, len(rows)):
        found = next((path for path in by_context.get(contexts[stream], ()) if path not in used), None)
        if found is None:
            return None
        used.add(found)
        chosen.append(found)
    return torch.tensor(chosen, device=rows.device)


def _contexts(rows: Tensor, span: TokenSpan) -> Tensor:
    """A number for what stands before a span, for each row ``[streams]``."""
    if span.start == 0:
        return torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    numbers: Tensor = torch.unique(rows[:, : span.start], dim=0, return_inverse=True)[1]
    return numbers


def _class_masses(context: Tensor, streams: Tensor, log_mass: Tensor) -> Tensor:
    """Log of the mean mass of the paths drawn in each stream's context ``[streams]``."""
    mean = torch.zeros(len(context), dtype=torch.float64, device=context.device)
    mean.index_add_(0, context[streams], log_mass.exp())
    drawn = torch.bincount(context[streams], minlength=len(context))
    return (mean / drawn.clamp(min=1))[context].clamp(min=_LEAST).log()


def _judge(
    reader: _Reader, span: TokenSpan, quantiser: Quantiser, levels: Sequence[int], log_class: Tensor | None = None
) -> Weights:
    """What one span of the reader's rows says of each stream.

    Args:
        reader: the streams.
        span: where.
        quantiser: how fakes are drawn.
        levels: steps of widening that they may have been drawn at; none where they were not drawn here.
        log_class: class masses ``[streams]``, where known.
    """
    count = len(reader.rows)
    alike = bool((_contexts(reader.rows, span) == 0).all())
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
    if not levels:
        return Weights(log_prior, torch.zeros_like(log_prior))
    if quantiser.metric == "grid":
        paths = paths + masses - (_log_class(masses, alike) if log_class is None else log_class)
    return Weights(log_prior, torch.logsumexp(_log_law(paths, alike), dim=0))


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
    left = (1 - gone).clamp(min=_LEAST).log().masked_fill(itself, 0.0)
    return law - left.sum(-1)
