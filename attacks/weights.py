"""Attacks on the model: the prompt is no secret here, the trusted side keeps a part of every protected matrix."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from attacks.base import Attack
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, WeightGuess
from smd_research.core.observable import Observable
from smd_research.models.bundle import Bundle


class WeightAttack(Attack):
    """An attack by the device that stores and runs the exposed part of the weights.

    ``Public.bundle`` is that part, as a model; the views add what passed while prompts were served.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.EXPOSED_WEIGHTS})

    @property
    def relative(self) -> Bundle | None:
        """A public model from which the secret one descends, where the attack knows one; asked for after ``fit``."""
        return None

    @abstractmethod
    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Reconstruct the weights from the views of all requests and what is public."""

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        """Refuses: it looks for weights, not for a prompt.

        Raises:
            NotApplicableError: always.
        """
        raise NotApplicableError("restores weights: it needs a defense that keeps weights secret")
