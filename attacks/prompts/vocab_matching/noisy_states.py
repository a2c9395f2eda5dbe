"""Hidden states under noise of a public law: maximum a posteriori by beam search.

A hypothesis scores ``log p(prefix) + sum_t log p(s_t | h_t)``, with the public language model and the public text as
the prior (:mod:`attacks.text_context`) and the defense's own channel as the likelihood (the idea of BeamClean, arXiv
2505.13758, carried to any layer). At the embedding every vocabulary entry is scored from one table; deeper, the prior
and a linear inverse of the blocks propose the candidates whose states are computed.
"""

from collections.abc import Mapping
from copy import copy

import torch
from torch import Tensor

from attacks.prompts.vocab_matching.evidence import NoisyEvidence
from attacks.prompts.vocab_matching.linear_inverse import LinearInverse
from attacks.text_context import Context
from smd_research.core.guess import Guess, Spent
from smd_research.models.extension import Extension, ExtensionEngine, LanguagePrior, Prefix

RESEMBLING = 0.4
"""Share of the shortlist that the linear inverse proposes, for each position; the prior proposes the rest."""

MISFIT = 1.4
"""Candidates none of which comes nearer than this, in multiples of the noise's variance, do not hold the right one."""

WIDER = 32
"""How many shortlists are then tried, in the order in which they resemble the state, until one fits."""

RANKED = 10


class NoisyStateSearch:
    """Beam search over tokens for one noisy view.

    Args:
        context: the prior.
        engine: truncated at the observed layer.
        evidence: what the states say of the hypotheses.
        beam: hypotheses carried.
        shortlist: candidates whose states are computed, for each hypothesis, below the embedding.
        inverse: proposes candidates by the state itself; None at the embedding, where all are scored.
    """

    def __init__(
        self,
        context: Context,
        engine: ExtensionEngine,
        evidence: NoisyEvidence,
        beam: int,
        shortlist: int,
        inverse: LinearInverse | None,
    ) -> None:
        self._context = context
        self._engine = engine
        self._evidence = evidence
        self._beam = beam
        self._inverse = inverse
        self._alike = min(round(RESEMBLING * shortlist), shortlist - 1) if inverse else 0
        self._expected = shortlist - self._alike

    def recover(self, states: Tensor, known: Mapping[int, int]) -> Guess:
        """The most probable tokens for noisy states ``[n, width]``, given those of some positions."""
        bundle = self._engine.bundle
        device = states.device
        self._engine.spent = Spent()
        prior = LanguagePrior(bundle)
        hypotheses: list[tuple[int, ...]] = [()]
        prefixes = [self._engine.start()]
        totals = torch.zeros(1, device=device)
        log_prior = self._context.opening[None]
        ranked: list[tuple[int, ...]] = []
        for position in range(len(states)):
            scores, found, candidates = self._score(
                prefixes, log_prior, states[position], position, known.get(position)
            )
            joint = totals[:, None] + scores
            ranked.append(self._top(joint, candidates))
            values, flat = joint.reshape(-1).topk(min(self._beam, joint.numel()))
            parents, columns = flat // joint.shape[1], flat % joint.shape[1]
            tokens = candidates[parents, columns]
            self._evidence.keep(parents, columns)
            hypotheses = [(*hypotheses[p], t) for p, t in zip(parents.tolist(), tokens.tolist(), strict=True)]
            prefixes = self._grow(prefixes, found, parents, columns, tokens)
            totals = values
            if position + 1 < len(states):
                if position > 0:
                    prior.select(parents)
                log_prior = self._context.following(tokens, prior.step(tokens))
        best = hypotheses[int(totals.argmax())]
        # What came after may have made another token the best one than the one that led when it was met.
        own = (tuple(dict.fromkeys((token, *row)))[:RANKED] for token, row in zip(best, ranked, strict=True))
        return Guess(best, tuple(own), spent=self._engine.spent)

    def _score(
        self, prefixes: list[Prefix], log_prior: Tensor, state: Tensor, position: int, known: int | None
    ) -> tuple[Tensor, list[Extension], Tensor]:
        """Scores ``[beam, candidates]``, the extensions behind them, and candidate ids of the same shape."""
        told = None if known is None else torch.full((len(prefixes), 1), known, device=state.device)
        if self._engine.upto == 0:
            table = self._engine.embedded(position).float()
            self._engine.spent += Spent(len(table))
            if told is not None:
                return log_prior.gather(1, told) + self._evidence.gain(table[told], state), [], told
            vocabulary = torch.arange(len(table), device=table.device).expand(len(prefixes), -1)
            return log_prior + self._evidence.gain(table[None], state), [], vocabulary
        if told is not None:
            return self._extended(prefixes, log_prior, state, told)
        proposals = self._propose(log_prior, state)
        scored = self._extended(prefixes, log_prior, state, proposals)
        if self._evidence.misfit > MISFIT and (better := self._elsewhere(prefixes[0], log_prior[0], state)) is not None:
            proposals = torch.cat([better.expand(len(prefixes), 1), proposals], dim=1)
            return self._extended(prefixes, log_prior, state, proposals)
        return scored

    def _extended(
        self, prefixes: list[Prefix], log_prior: Tensor, state: Tensor, proposals: Tensor
    ) -> tuple[Tensor, list[Extension], Tensor]:
        """The same for proposals ``[beam, candidates]``, by running the blocks on them."""
        found = [self._engine.extend(prefix, row) for prefix, row in zip(prefixes, proposals, strict=True)]
        states = torch.stack([extension.hidden.float() for extension in found])
        return log_prior.gather(1, proposals) + self._evidence.gain(states, state), found, proposals

    def _propose(self, log_prior: Tensor, state: Tensor) -> Tensor:
        """Candidates ``[beam, c]``, none twice: those that look like the state, then those the prior expects."""
        if self._inverse is None:
            return log_prior.topk(min(self._expected, log_prior.shape[1])).indices
        alike = self._inverse.nearest(state, self._alike)
        rest = log_prior.index_fill(1, alike, float("-inf"))
        expected = rest.topk(min(self._expected, log_prior.shape[1] - len(alike))).indices
        return torch.cat([alike.expand(len(log_prior), -1), expected], dim=1)

    def _elsewhere(self, prefix: Prefix, log_prior: Tensor, state: Tensor) -> Tensor | None:
        """A token ``[1]`` after the best hypothesis that the noise explains and nothing had proposed; None without."""
        shortlist = self._expected + self._alike
        most = min(WIDER * shortlist, len(log_prior))
        order = self._inverse.nearest(state, most) if self._inverse else log_prior.topk(most).indices
        trial = copy(self._evidence)  # what is only tried must not stand in for the proposals
        for batch in self._engine.in_batches(order, shortlist):
            gains = trial.gain(self._engine.extend(prefix, batch).hidden.float()[None], state)[0]
            if trial.misfit <= MISFIT:
                return batch[gains.argmax()][None]
        return None

    def _top(self, joint: Tensor, candidates: Tensor) -> tuple[int, ...]:
        order = joint.reshape(-1).argsort(descending=True)[: RANKED * len(joint)]
        return tuple(dict.fromkeys(candidates.reshape(-1)[order].tolist()))[:RANKED]

    def _grow(
        self, prefixes: list[Prefix], found: list[Extension], parents: Tensor, columns: Tensor, tokens: Tensor
    ) -> list[Prefix]:
        if self._engine.upto == 0:
            return [Prefix(prefixes[p].store, prefixes[p].length + 1) for p in parents.tolist()]
        grown = []
        for parent, column, token in zip(parents.tolist(), columns.tolist(), tokens.tolist(), strict=True):
            prefix = prefixes[parent].copy()
            self._engine.advance(prefix, token, found[parent], column)
            grown.append(prefix)
        return grown
