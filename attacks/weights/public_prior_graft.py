"""Grafts a public relative's components onto the exposed part of a fine-tuned model: no data, no queries, no training.

A model that descends from public weights ``P`` shares their top components, and those are what SLIP keeps back. Two
ways to take them from ``P`` (own analysis; the family of ArrowMatch, USENIX Security 2025):

* ``top_k``: ``W = W^D + top_k(P - W^D)``;
* ``projected``: ``W = W^D + U U^T P V V^T``, with the null spaces ``U``, ``V`` of ``W^D`` between which ``W^C`` lies.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.base import Public, WeightAttack
from attacks.exposure import Protected, protected, stored
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.models import sources
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of

METHODS = ("projected", "top_k", "relative")


class PublicPriorGraft(WeightAttack):
    """Restores weights from those of a public relative.

    Args:
        relative: ``embedded`` or a model folder.
        method: ``projected`` or ``top_k``; ``relative``, the control, takes the public matrices as they are.
        components: for ``top_k``, how many components to take in multiples of the secret rank; 2 covers a secret mask
            that has its own directions beside those it hides.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(self, relative: str = "embedded", method: str = "projected", components: float = 1.0) -> None:
        if method not in METHODS:
            raise ConfigError(f"attack.method={method} is unknown: use one of {', '.join(METHODS)}")
        if components <= 0:
            raise ConfigError(f"attack.components={components:g} is out of range: give more than 0")
        self._source = relative
        self._method = method
        self._components = components

    def fit(self, public: Public) -> None:
        """Take in public knowledge and load the relative.

        Raises:
            ConfigError: when there is no model at ``relative``.
            NotApplicableError: when it is of another architecture, or nothing is secret.
        """
        self._targets = protected(public)
        known = sources.embedded() if self._source == "embedded" else sources.local(self._source)
        if _shapes(known) != _shapes(public.bundle):
            raise NotApplicableError(f"needs a public relative of the same shape: '{known.name}' has another")
        self._known = known
        self._priors = linear_layers(known)
        super().fit(public)

    @property
    def relative(self) -> Bundle:
        return self._known

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        restored = {target.name: self._graft(target) for target in self._targets}
        return WeightGuess(stored(self.public, restored), spent=Spent(steps=len(restored)))

    def _graft(self, target: Protected) -> Tensor:
        prior = weight_of(self._priors[target.name]).detach().to(target.exposed)
        if self._method == "relative":
            return prior
        if self._method == "top_k":
            return target.exposed + _top(prior - target.exposed, round(self._components * target.rank))
        inside, outside = target.input_space, target.output_space
        return target.exposed + outside @ (outside.T @ prior @ inside) @ inside.T


def _shapes(bundle: Bundle) -> dict[str, torch.Size]:
    return {name: weight_of(layer).shape for name, layer in linear_layers(bundle).items()}


def _top(matrix: Tensor, rank: int) -> Tensor:
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    top: Tensor = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return top
