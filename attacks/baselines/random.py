"""Chance level: uniform tokens at the public length."""

import numpy as np

from attacks.base import PromptAttack
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess


def public_length(view: AdversaryView) -> int:
    """The prompt's length in tokens, where the protocol gives it away.

    Raises:
        NotApplicableError: when it does not.
    """
    if view.length is None:
        raise NotApplicableError("the defense hides the prompt's length")
    return view.length


class Random(PromptAttack):
    """Draws every token uniformly from the vocabulary."""

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        ids = rng.integers(0, self.public.bundle.geometry.vocab, public_length(view))
        return Guess(tuple(ids.tolist()))
