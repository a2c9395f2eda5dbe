"""Hidden states under Gaussian noise of public scale: maximum a posteriori by beam search.

A hypothesis scores ``log p(prefix) - sum_t |h_t - s_t|^2 / (2 sigma^2)`` with the public language model as the prior
(the idea of BeamClean, arXiv 2505.13758, carried to any layer). At the embedding every vocabulary entry is scored from
one table; deeper, the language model and a linear inverse of the blocks propose the candidates whose states are
computed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from attacks.base import Public
from attacks.prompts.vocab_matching.linear_inverse import LinearInverse
from smd_research.core.guess import Guess, Spent
from smd_research.mechanisms.privacy.gaussian import clip_rows
from smd_research.models.extension import Extension, ExtensionEngine, LanguagePrior, Prefix

EXPECTED = 192  # candidates proposed by the language model, for each hypothesis
RESEMBLING = 128  # candidates proposed by the linear inverse, for each position
RANKED = 10


class NoisyStateSearch:
    """Beam search over tokens for one noisy view.

    Args:
        public: what the adversary knows.
        engine: truncated at the observed layer.
        sigma: standard deviation of the noise on each coordinate.
        beam: hypotheses carried.
        inverse: proposes candidates by the state itself; None at the embedding, where all are scored.
        clip: norm to which the defense clipped each row before the noise, where it did.
    """

    def __init__(
        self,
        public: Public,
        engine: ExtensionEngine,
        sigma: float,
        beam: int,
        inverse: LinearInverse | None,
        clip: float | None = None,
    ) -> None:
        self._public = public
        self._engine = engine
        self._sigma = sigma
        self._beam = beam
        self._inverse = inverse
        self._clip = clip

    def recover(self, states: Tensor, known: Mapping[int, int]) -> Guess:
        """The most probable tokens for noisy states ``[n, width]``, given those of some positions."""
        bundle = self._public.bundle
        device = states.device
        self._engine.spent = Spent()
        prior = LanguagePrior(bundle)
        hypotheses: list[tuple[int, ...]] = [()]
        prefixes = [self._engine.start()]
        totals = torch.zeros(1, device=device)
        log_prior = self._first_prior()
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
            hypotheses = [(*hypotheses[p], t) for p, t in zip(parents.tolist(), tokens.tolist(), strict=True)]
            prefixes = self._grow(prefixes, found, parents, columns, tokens)
            totals = values
            if position + 1 < len(states):
                if position > 0:
                    prior.select(parents)
                log_prior = prior.step(tokens)
        best = hypotheses[int(totals.argmax())]
        # What came after may have made another token the best one than the one that led when it was met.
        own = (tuple(dict.fromkeys((token, *row)))[:RANKED] for token, row in zip(best, ranked, strict=True))
        return Guess(best, tuple(own), spent=self._engine.spent)

    def _first_prior(self) -> Tensor:
        """Prior of the opening token ``[1, vocab]``: its frequency in the corpus, add-one smoothed."""
        vocab = self._public.bundle.geometry.vocab
        counts = torch.ones(vocab)
        for document in self._public.corpus:
            counts[document[0]] += 1
        return (counts / counts.sum()).log().unsqueeze(0).to(self._public.bundle.device)

    def _score(
        self, prefixes: list[Prefix], log_prior: Tensor, state: Tensor, position: int, known: int | None
    ) -> tuple[Tensor, list[Extension], Tensor]:
        """Scores ``[beam, candidates]``, the extensions behind them, and candidate ids of the same shape."""
        told = None if known is None else torch.full((len(prefixes), 1), known, device=state.device)
        if self._engine.upto == 0:
            table = self._engine.embedded(position).float()
            vocabulary = torch.arange(len(table), device=table.device).expand(len(prefixes), -1)
            self._engine.spent += Spent(len(table))
            scores = log_prior + self._likelihood(table, state)
            return (scores, [], vocabulary) if told is None else (scores.gather(1, told), [], told)
        proposals = self._propose(log_prior, state) if told is None else told
        found = [self._engine.extend(prefix, row) for prefix, row in zip(prefixes, proposals, strict=True)]
        likelihood = torch.stack([self._likelihood(extension.hidden.float(), state) for extension in found])
        return log_prior.gather(1, proposals) + likelihood, found, proposals

    def _propose(self, log_prior: Tensor, state: Tensor) -> Tensor:
        """Candidates ``[beam, c]``, none twice: those that look like the state, then those the prior expects."""
        if self._inverse is None:
            return log_prior.topk(min(EXPECTED, log_prior.shape[1])).indices
        alike = self._inverse.nearest(state, RESEMBLING)
        rest = log_prior.index_fill(1, alike, float("-inf"))
        expected = rest.topk(min(EXPECTED, log_prior.shape[1] - len(alike))).indices
        return torch.cat([alike.expand(len(log_prior), -1), expected], dim=1)

    def _likelihood(self, states: Tensor, observed: Tensor) -> Tensor:
        states = clip_rows(states, self._clip) if self._clip else states
        return -((states - observed) ** 2).sum(-1) / (2 * self._sigma**2)

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
