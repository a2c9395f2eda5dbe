"""Recover sanitised text from the public channel and a prior (Kerckhoffs: the mechanism is known, its draws are not).

``nearest`` reads the sanitised text as it stands. ``bayes`` takes, token by token, ``argmax_x p(y|x) p(x)`` with
unigram frequencies of a public corpus: no context-free attack does better on average (Tong et al., NAACL 2025).
``beam`` reads what stands before as well: it carries the likeliest last tokens from left to right,
``sum_t log p(y_t|x_t) + log p(x_t|x_<t)``, with the public language model and the public corpus as the prior
(:mod:`attacks.text_context`). Readings that end in the same token are joined, and at each place it takes the token that
has most of their probability, forwards and backwards: that recovers more tokens than the likeliest whole text.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.text_context import Context
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PromptIds
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.channel_estimate import EstimatedChannel, estimate_channel
from smd_research.mechanisms.privacy.channels import TokenChannelParameters, published_channel
from smd_research.mechanisms.privacy.normalisers import Likelihood
from smd_research.mechanisms.privacy.survival import token_frequencies
from smd_research.mechanisms.privacy.token_channel import FiniteChannel

MODES = ("nearest", "bayes", "beam")
RANKED = 10


class BayesToken(PromptAttack):
    """Bayesian recovery of sanitised tokens.

    Args:
        mode: ``nearest``, ``bayes`` or ``beam``.
        beam: hypotheses carried.
        lm_share: weight of the language model in the prior of ``beam``, the rest is the public corpus; None: what
            explains the corpus best.
        draws: for a channel without closed form, runs of the mechanism for each token of the vocabulary.

    Raises:
        ConfigError: for a value out of range.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.SANITISED_IDS})

    def __init__(self, mode: str = "beam", beam: int = 32, lm_share: float | None = None, draws: int = 16) -> None:
        if mode not in MODES:
            raise ConfigError(f"attack.mode={mode} is unknown: use one of {', '.join(MODES)}")
        if beam < 1 or draws < 1 or not (lm_share is None or 0 <= lm_share <= 1):
            raise ConfigError("bayes_token needs attack.beam >= 1, attack.draws >= 1 and attack.lm_share within [0, 1]")
        self._mode = mode
        self._beam = beam
        self._lm_share = lm_share
        self._draws = draws

    def fit(self, public: Public) -> None:
        """Rebuild the channel from its public parameters and count the corpus.

        Raises:
            NotApplicableError: when the channel cannot be written down or estimated.
        """
        super().fit(public)
        known = public.parameters_of(TokenChannelParameters)
        channel = published_channel(known, public.bundle)
        counts = token_frequencies(public.corpus, public.bundle.geometry.vocab) + 1.0
        if not isinstance(channel, FiniteChannel) and self._mode != "nearest":
            channel = estimate_channel(channel, self._draws, generator(0, "bayes_token", "channel"), counts)
        self._channel = channel
        self._unigram = np.log(counts / counts.sum())
        if self._mode == "beam":
            self._context = Context(public.bundle, public.corpus, self._lm_share)

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        sent, wrapper = view.of(PromptIds)[0].ids.tolist(), view.wrapper
        return self._recover(sent[wrapper.place(len(sent))], wrapper.head).wrapped(wrapper)

    def _recover(self, observed: list[int], before: Sequence[int]) -> Guess:
        """What the user wrote, from what was made of it and the public tokens before it."""
        if self._mode == "nearest":
            near = [self._neighbours(token) for token in observed]
            return Guess(tuple(observed), tuple(near), spent=Spent(candidates=len(observed)))
        if not isinstance(self._channel, FiniteChannel):
            raise NotApplicableError("the channel's probabilities are not known")
        likelihood = self._channel.likelihood(observed)
        prior = torch.from_numpy(self._unigram)[None]
        alone = tuple(tuple(_best(likelihood, i, prior, RANKED)[1].tolist()) for i in range(len(likelihood)))
        spent = Spent(candidates=len(observed) * prior.numel())
        if self._mode == "bayes":
            return Guess(tuple(row[0] for row in alone), alone, spent=spent, facts=self._facts)
        return self._decode(likelihood, alone, spent, before)

    @property
    def _facts(self) -> dict[str, float]:
        """How far an estimated channel is off."""
        return {"channel_error": self._channel.error} if isinstance(self._channel, EstimatedChannel) else {}

    def _neighbours(self, token: int) -> tuple[int, ...]:
        space = self._channel.space
        if not space.is_private[token]:
            return (token,)
        return tuple(int(i) for i in space.private_ids[np.argsort(space.distances([token])[0])[:RANKED]])

    def _decode(
        self, likelihood: Likelihood, alone: tuple[tuple[int, ...], ...], spent: Spent, before: Sequence[int]
    ) -> Guess:
        """Beam search for the likeliest readings, and at each place the token likeliest among them.

        Args:
            likelihood: ``log p(y_t|x)``.
            alone: the context-free ranking of each position, to fill up what the beam no longer holds.
            spent: so far.
            before: public tokens that the language model reads first.
        """
        bundle = self.public.bundle
        model = self._context.reader(before)
        lattice = Lattice(torch.zeros(1, device=bundle.device))
        prior = self._context.opening[None]
        forwards = 0
        for position in range(len(likelihood)):
            arrived = torch.logsumexp(lattice.totals[:, None] + prior, dim=0)
            totals, tokens = _best(likelihood, position, arrived[None], self._beam)
            parents = lattice.extend(tokens, totals, totals - arrived[tokens], prior[:, tokens])
            if position + 1 < len(likelihood):
                if position or before:
                    model.select(parents)
                prior = self._context.following(tokens, model.step(tokens))
                forwards += len(tokens)
        likeliest = lattice.likeliest()
        ranked = tuple(
            tuple(dict.fromkeys([*column, *rest]))[:RANKED] for column, rest in zip(likeliest, alone, strict=True)
        )
        flops = 2.0 * sum(p.numel() for p in bundle.model.parameters()) * forwards
        return Guess(tuple(row[0] for row in ranked), ranked, spent=spent + Spent(forwards, flops), facts=self._facts)


class Lattice:
    """Readings of a text, in which those that end in the same token are one from there on.

    Args:
        totals: log probability of the start ``[1]``.

    Attributes:
        totals: log probability of what was seen so far together with each last token ``[b]``.
    """

    def __init__(self, totals: Tensor) -> None:
        self.totals = totals
        self._forward: list[tuple[Tensor, Tensor]] = []
        self._steps: list[Tensor] = []

    def extend(self, tokens: Tensor, totals: Tensor, seen: Tensor, prior: Tensor) -> Tensor:
        """Go on to the next place; returns which reading so far is the likeliest before each token ``[b]``.

        Args:
            tokens: at the next place ``[b]``.
            totals: of them, all readings before counted ``[b]``.
            seen: log probability of what was seen there given each token ``[b]``.
            prior: log probability of each token after each reading so far ``[a, b]``.
        """
        parents = (self.totals[:, None] + prior).argmax(0)
        self._forward.append((tokens, totals))
        self._steps.append(prior + seen)
        self.totals = totals
        return parents

    def likeliest(self) -> list[list[int]]:
        """At each place its tokens, the likeliest given all that was seen first (forwards and backwards)."""
        after, found = torch.zeros_like(self.totals), []
        for (tokens, totals), step in zip(reversed(self._forward), reversed(self._steps), strict=True):
            found.append(tokens[(totals + after).argsort(descending=True, stable=True)].tolist())
            after = torch.logsumexp(step + after, dim=1)
        return found[::-1]


def _best(likelihood: Likelihood, position: int, prior: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of ``prior [rows, V] + log p(y|x)`` and their places in the flattened sum, each at most ``[count]``.

    Only inputs whose bound reaches the last of the best are settled: the result is as if all had been.
    """

    def joint() -> Tensor:
        return prior + torch.from_numpy(likelihood.row(position)).to(prior)

    def settle(inputs: Tensor) -> None:
        likelihood.settle(inputs.cpu().numpy())

    found = joint()
    count = min(count, int(found.isfinite().sum()))
    settle(found.reshape(-1).topk(count).indices % found.shape[1])
    found = joint()
    least = found[:, torch.from_numpy(likelihood.settled).to(found.device)].reshape(-1).topk(count).values[-1]
    settle((found >= least).any(0).nonzero()[:, 0])
    best = joint().reshape(-1).topk(count)
    return best.values, best.indices
