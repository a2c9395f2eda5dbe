"""Nearest token: states at the embedding layer are looked up in the public table (Song and Raghunathan, CCS 2020, §3).

The table is what the public model itself produces for every vocabulary entry at the position in question, so scaled
embeddings and learned positions are taken into account; where the defense clips rows, the table's rows are clipped
too. Under Gaussian and radial noise the nearest row is the most likely one. Where rows were clipped after the noise, or
as one message, lengths say nothing, and directions are compared.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.privacy.gaussian import GaussianParameters
from smd_research.mechanisms.privacy.radial import RadialParameters
from smd_research.mechanisms.releases import release_of
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters
from smd_research.models.extension import ExtensionEngine

RANKED = 10
# A state counts as found when the nearest row is this much nearer than the next one.
GAP = 0.05


class NearestToken(PromptAttack):
    """For each position the row of the public table that is nearest to the state seen."""

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.HIDDEN_STATES})

    def fit(self, public: Public) -> None:
        """Take in the public parameters.

        Raises:
            NotApplicableError: when the states are not those of the embedding layer, or are permuted.
        """
        super().fit(public)
        layer, permutation = public.parameters_of(SplitParameters).layer, public.published(PermutationParameters)
        if layer != 0:
            raise NotApplicableError(f"nearest_token reads embedding-layer states; these are of layer {layer}")
        if permutation and permutation.permute != "none":
            raise NotApplicableError(
                f"nearest_token needs rows and features in order; here permute={permutation.permute}"
            )
        noise, radial = public.published(GaussianParameters), public.published(RadialParameters)
        self._release = release_of(public.parameters)
        self._by_direction = bool(noise and noise.unit == "sequence") or bool(radial and radial.clip)
        self._engine = ExtensionEngine(public.bundle, 0)
        first, second = (self._engine.embedded(position) for position in (0, 1))
        self._one_table = self._compared(first) if torch.equal(first, second) else None

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        states = view.of(HiddenStates)[0].hidden.to(self.public.bundle.device, torch.float32)
        ranked, ratios = [], []
        for position, state in enumerate(states):
            table = self._one_table if self._one_table is not None else self._compared(self._engine.embedded(position))
            state = torch.nn.functional.normalize(state, dim=-1) if self._by_direction else state
            distances = torch.linalg.vector_norm(table - state, dim=-1)
            nearest, order = distances.topk(RANKED, largest=False)
            ranked.append(tuple(order.tolist()))
            # of two rows that are both met exactly neither is nearer
            ratios.append(float(nearest[0] / nearest[1]) if nearest[1] > 0 else 1.0)
        worst = max(ratios)
        certified = None if self._release.noisy else worst < GAP
        ids = tuple(candidates[0] for candidates in ranked)
        return Guess(ids, tuple(ranked), certified, worst, Spent(candidates=len(states) * self._vocab))

    @property
    def _vocab(self) -> int:
        return self.public.bundle.geometry.vocab

    def _compared(self, table: Tensor) -> Tensor:
        """The table as it would be sent, but for noise."""
        sent = self._release.centre(table.float())
        return torch.nn.functional.normalize(sent, dim=-1) if self._by_direction else sent
