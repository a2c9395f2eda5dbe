"""Reading: where the prompt crosses in plain token ids, seeing it is having it; the ceiling of every table."""

from typing import ClassVar

import numpy as np

from attacks.base import PromptAttack
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PromptIds
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable


class Reading(PromptAttack):
    """Takes the token ids as they were sent."""

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.TOKEN_IDS})

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        return Guess(tuple(view.of(PromptIds)[0].ids.tolist()), certified=True)
