"""The exposed part as it is: the floor of every attack that restores weights."""

from collections.abc import Sequence

import numpy as np

from attacks.base import WeightAttack
from smd_research.boundary import AdversaryView
from smd_research.core.guess import WeightGuess


class ExposedWeights(WeightAttack):
    """Uses what the device stores without mending it."""

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        return WeightGuess({})
