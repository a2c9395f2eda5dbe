"""Vocabulary matching: hidden states are plaintext to whoever knows the weights.

Left to right, each position asks: which token, after the prefix found so far, gives the state that was seen? (Hidden No
More, arXiv 2505.18332; SipIt, arXiv 2510.15511.) Candidates come in the order of the public model's own next-token
probabilities, in growing batches, after a shared prefix, and only up to the layer observed. A candidate is accepted
before all are tried when its distance is small beside the next best one and no larger than rounding explains, so that
no threshold has to be tuned per layer or scheme. (The gap alone is not enough under a secret row order: a word that
comes again further on is already much nearer to its later row than any other word.) Rows in secret order are matched
to the nearest unused one, features in secret order by their sorted values.

Where the defense adds noise of a public law, distances become log likelihoods of that law, joined with the language
model's, and a beam carries the alternatives: Gaussian noise on clipped rows or on a message clipped as a whole, whose
factor is not known; radial noise on embeddings, as it should be drawn and as it was released; and what is left of a row
that was clipped after the noise, its direction. Where the client sends what a public release makes of its states, so do
candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.prompts.vocab_matching.evidence import NoisyEvidence, RowEvidence, ScaledEvidence
from attacks.prompts.vocab_matching.linear_inverse import LinearInverse
from attacks.prompts.vocab_matching.noisy_states import NoisyStateSearch
from attacks.prompts.vocab_matching.public_states import PublicStates
from attacks.prompts.vocab_matching.row_order import states_after_first_block
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import ConfigError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.privacy.gaussian import GaussianParameters
from smd_research.mechanisms.releases import release_of
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters
from smd_research.models.extension import Extension, ExtensionEngine, LanguagePrior, Prefix
from smd_research.models.sources import DTYPES

RANKED = 10
# Largest relative distance that rounding explains, by the coarser of the wire's and the model's type.
ROUNDING = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class _Match:
    """The best candidate of a batch, with the row it matches and the runner-up; distances are relative to the row."""

    token: int
    row: int
    distance: float
    second: float
    found: Extension
    index: int
    ranked: tuple[tuple[float, int], ...]


class VocabMatching(PromptAttack):
    """Greedy vocabulary matching with proposals, prefix cache, layer truncation and adaptive acceptance.

    Args:
        proposals: size of the first batch, in the language model's order.
        gap: accept when the best distance is below ``gap`` times the second best (of different tokens).
        beam: hypotheses carried where states are noisy.
        shortlist: candidates whose states are computed for each of them, below a noisy embedding: two fifths resemble
            the state, the language model expects the rest. At the embedding all are scored.

    Raises:
        ConfigError: for a shortlist of fewer than two.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.HIDDEN_STATES})

    def __init__(self, proposals: int = 64, gap: float = 0.1, beam: int = 8, shortlist: int = 320) -> None:
        if shortlist < 2:
            raise ConfigError(f"attack.shortlist={shortlist} is out of range: use 2 or more")
        self._shortlist = shortlist
        self._proposals = proposals
        self._gap = gap
        self._beam = beam

    def fit(self, public: Public) -> None:
        super().fit(public)
        cut = public.parameters_of(SplitParameters)
        permutation = public.published(PermutationParameters) or PermutationParameters()
        self._layer = cut.layer
        self._rows_permuted, self._features_permuted = permutation.rows, permutation.features
        noise = public.published(GaussianParameters)
        self._scaled = noise if noise and noise.unit == "sequence" else None
        self._release = release_of(public.parameters)
        self._rounding = max(ROUNDING[DTYPES[cut.wire_dtype]], ROUNDING[public.bundle.dtype])
        self._engine = ExtensionEngine(public.bundle, self._layer)
        self._public_states = None
        # to guess how much was clipped of a message, and below the embedding to propose candidates
        if (self._scaled or (self._release.noisy and self._layer > 0)) and public.corpus:
            self._public_states = PublicStates.of(public, self._layer)
        self._ordered_by_contexts = self._layer == 0 and self._rows_permuted and self._engine.same_everywhere
        if self._ordered_by_contexts:
            self._engine = ExtensionEngine(public.bundle, 1)

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        states = view.of(HiddenStates)[0].hidden.to(self.public.bundle.device, torch.float32)
        known = view.wrapper.known(len(states))
        if self._release.noisy:
            return self._search(states, known)
        self._engine.spent = Spent()
        sort = self._features_permuted
        if self._ordered_by_contexts:
            states = states_after_first_block(self.public, self._engine, view, states, features_permuted=sort)
            sort = False
        return self._match_all(states.sort(-1).values if sort else states, sort, known)

    def _search(self, states: Tensor, known: Mapping[int, int]) -> Guess:
        """Noisy states: a beam in place of exact matching."""
        evidence: NoisyEvidence = RowEvidence(self._release.log_density)
        seen, table, inverse = self._public_states, self.public.bundle.embedding, None
        if self._scaled:
            sigma = self._scaled.sigma_of(len(states))
            factor, spread = seen.factor(self._scaled.clip, len(states)) if seen else (1.0, 1.0)
            evidence = ScaledEvidence(sigma, factor, spread)
            if seen and self._layer > 0:
                inverse = LinearInverse(seen, table, sigma, factor)
        elif seen:
            inverse = LinearInverse(seen, table, release=self._release)
        search = NoisyStateSearch(self.public, self._engine, evidence, self._beam, self._shortlist, inverse)
        return search.recover(states, known)

    def _match_all(self, states: Tensor, sort: bool, known: Mapping[int, int]) -> Guess:
        bundle = self.public.bundle
        prefix, prior = self._engine.start(), LanguagePrior(bundle)
        unused = torch.ones(len(states), dtype=torch.bool, device=states.device)
        order = self._first_order()
        ids: list[int] = []
        ranked: list[tuple[int, ...]] = []
        worst = 0.0
        for position in range(len(states)):
            if position in known:
                order = torch.tensor([known[position]], device=states.device)
            rows = unused.nonzero()[:, 0] if self._rows_permuted else torch.tensor([position], device=states.device)
            match = self._match(prefix, order, states, rows, sort)
            unused[match.row] = False
            worst = max(worst, match.distance)
            ids.append(match.token)
            ranked.append(tuple(token for _, token in match.ranked))
            self._engine.advance(prefix, match.token, match.found, match.index)
            if position + 1 < len(states):
                log_probability = prior.step(torch.tensor([match.token], device=states.device))[0]
                order = log_probability.argsort(descending=True)
        return Guess(tuple(ids), tuple(ranked), worst < self._rounding, worst, self._engine.spent)

    def _first_order(self) -> Tensor:
        """Candidates of the first position: special tokens, which usually open a prompt, then all others."""
        bundle = self.public.bundle
        vocab = bundle.geometry.vocab
        special = sorted(i for i in bundle.special_ids if i < vocab)
        rest = sorted(set(range(vocab)) - set(special))
        return torch.tensor([*special, *rest], device=bundle.device)

    def _match(self, prefix: Prefix, order: Tensor, states: Tensor, rows: Tensor, sort: bool) -> _Match:
        best: _Match | None = None
        for batch in self._engine.in_batches(order, self._proposals):
            found = self._engine.extend(prefix, batch)
            best = self._better(best, self._nearest(found, batch, states[rows], rows, sort))
            if best.distance < min(self._gap * best.second, self._rounding):
                break
        assert best is not None
        return best

    def _nearest(self, found: Extension, batch: Tensor, seen: Tensor, rows: Tensor, sort: bool) -> _Match:
        candidates = self._release.centre(found.hidden.float())
        if sort:
            candidates = candidates.sort(-1).values
        distances = torch.cdist(candidates, seen, compute_mode="donot_use_mm_for_euclid_dist")
        per_token, row = (distances / seen.norm(dim=-1).clamp_min(1e-30)).min(1)
        values, indices = per_token.topk(min(RANKED, len(batch)), largest=False)
        ranked = tuple(zip(values.tolist(), batch[indices].tolist(), strict=True))
        index = int(indices[0])
        second = ranked[1][0] if len(ranked) > 1 else float("inf")
        return _Match(int(batch[index]), int(rows[row[index]]), ranked[0][0], second, found, index, ranked)

    def _better(self, one: _Match | None, two: _Match) -> _Match:
        if one is None:
            return two
        ranked = tuple(sorted({*one.ranked, *two.ranked}))[:RANKED]
        nearer = one if one.distance <= two.distance else two
        return _Match(nearer.token, nearer.row, nearer.distance, ranked[1][0], nearer.found, nearer.index, ranked)
