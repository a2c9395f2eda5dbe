"""Vocabulary matching: hidden states are plaintext to whoever knows the weights.

Left to right, each position asks: which token, after the prefix found so far, gives the state that was seen? (Hidden No
More, arXiv 2505.18332; SipIt, arXiv 2510.15511.) What a linear lens, fitted to public text, reads in the states by
themselves is tried at several positions together; where that fails, candidates come by the lens and the public model's
own next-token probabilities, in growing batches, after a shared prefix, and only up to the layer observed. A candidate
is accepted before all are tried when its distance is small beside the next best one and no larger than rounding
explains, so that no threshold has to be tuned per layer or scheme. (The gap alone is not enough under a secret row
order: a word that comes again further on is already much nearer to its later row than any other word.) Rows in secret
order are matched to the nearest unused one, features in secret order by their sorted values, without the lens.

Where the defense adds noise of a public law, distances become log likelihoods of that law, joined with what language
model and public text expect, and a beam carries the alternatives: Gaussian noise on clipped rows or on a message
clipped as a whole, whose factor is not known; radial noise on embeddings, as it should be drawn and as it was released;
and what is left of a row that was clipped after the noise, its direction. Where the client sends what a public release
makes of its states, so do candidates.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.prompts.vocab_matching.evidence import NoisyEvidence, RowEvidence, ScaledEvidence
from attacks.prompts.vocab_matching.exact_states import ExactStateSearch, Matching
from attacks.prompts.vocab_matching.linear_inverse import LinearInverse
from attacks.prompts.vocab_matching.noisy_states import NoisyStateSearch
from attacks.prompts.vocab_matching.public_states import PublicStates, clipping
from attacks.prompts.vocab_matching.row_order import states_after_first_block
from attacks.text_context import Context
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import ConfigError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.privacy.gaussian import GaussianParameters
from smd_research.mechanisms.releases import release_of
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters
from smd_research.models.extension import ExtensionEngine
from smd_research.models.sources import DTYPES
from smd_research.models.token_lens import token_lens

# Largest relative distance that rounding explains, by the coarser of the wire's and the model's type.
ROUNDING = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class VocabMatching(PromptAttack):
    """Greedy vocabulary matching with proposals, prefix cache, layer truncation and adaptive acceptance.

    Args:
        proposals: candidates tried first: a few of each of the next positions, or of one position.
        gap: accept when the best distance is below ``gap`` times the second best (of different tokens).
        beam: hypotheses carried where states are noisy.
        shortlist: candidates whose states are computed for each of them, below a noisy embedding: two fifths resemble
            the state, the prior expects the rest. At the embedding all are scored.

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
        self._context = Context(public.bundle, public.corpus) if self._release.noisy else None
        self._public_states = None
        if self._release.noisy and self._layer > 0 and public.corpus:
            self._public_states = PublicStates.of(public, self._layer)
        self._clipping: dict[int, tuple[float, float]] = {}
        self._ordered_by_contexts = self._layer == 0 and self._rows_permuted and self._engine.same_everywhere
        if self._ordered_by_contexts:
            self._engine = ExtensionEngine(public.bundle, 1)
        self._lens = None
        if not self._release.noisy and (self._ordered_by_contexts or not self._features_permuted):
            self._lens = token_lens(public.bundle, self._engine.upto, public.corpus, self._release.centre)

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        states = view.of(HiddenStates)[0].hidden.to(self.public.bundle.device, torch.float32)
        known = view.wrapper.known(len(states))
        if self._context is not None:
            return self._search(states, known, self._context)
        self._engine.spent = Spent()
        sort = self._features_permuted
        if self._ordered_by_contexts:
            states = states_after_first_block(self.public, self._engine, view, states, features_permuted=sort)
            sort = False
        matching = Matching(self._release, self._rounding, self._gap, sort=sort, permuted=self._rows_permuted)
        search = ExactStateSearch(self.public.bundle, self._engine, matching, self._proposals, self._lens)
        return search.recover(states.sort(-1).values if sort else states, known)

    def _search(self, states: Tensor, known: Mapping[int, int], context: Context) -> Guess:
        """Noisy states: a beam in place of exact matching."""
        evidence: NoisyEvidence = RowEvidence(self._release.log_density)
        seen, table, inverse = self._public_states, self.public.bundle.embedding, None
        if self._scaled:
            sigma = self._scaled.sigma_of(len(states))
            factor, spread = self._scaling(self._scaled.clip, len(states))
            evidence = ScaledEvidence(sigma, factor, spread)
            if seen:
                inverse = LinearInverse(seen, table, sigma, factor)
        elif seen:
            inverse = LinearInverse(seen, table, release=self._release)
        search = NoisyStateSearch(context, self._engine, evidence, self._beam, self._shortlist, inverse)
        return search.recover(states, known)

    def _scaling(self, clip: float, rows: int) -> tuple[float, float]:
        """By what a message of so many rows was scaled, as far as public text tells: mean and standard deviation."""
        if not self.public.corpus:
            return 1.0, 1.0
        if rows not in self._clipping:
            self._clipping[rows] = clipping(self.public, self._layer, clip, rows)
        return self._clipping[rows]
