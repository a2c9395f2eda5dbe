"""How a small masked language model is trained: what decides it, apart from what does it."""

import math
from dataclasses import dataclass

from smd_research.core.errors import ConfigError
from smd_research.models.pair_reader import ReaderShape

SHORTEST = 4
"""Tokens of the shortest text that a reader learns from."""


@dataclass(frozen=True)
class ReaderRecipe:
    """How a reader is trained; with the public text and the model's embedding it decides the result.

    Attributes:
        shape: of the network.
        steps: optimiser steps.
        batch: texts of a step.
        learning_rate: peak learning rate.
        masked: share of the second reading's tokens that are masked and asked for.
        hidden: share of the first reading's tokens that cannot be read, so that the context is learnt too.
        replaced: share of them that are other tokens, so that what stands there is evidence and no proof.

    Raises:
        ConfigError: for a value out of range.
    """

    shape: ReaderShape
    steps: int
    batch: int
    learning_rate: float
    masked: float = 0.25
    hidden: float = 0.3
    replaced: float = 0.2

    def __post_init__(self) -> None:
        if min(self.shape.width, self.shape.layers, self.shape.heads, self.steps, self.batch) < 1:
            raise ConfigError("defense: reader_width, reader_layers, reader_steps and reader_batch are at least 1")
        if self.shape.tokens < SHORTEST:
            raise ConfigError(f"defense.reader_tokens={self.shape.tokens} is out of range: at least {SHORTEST}")
        if self.shape.width % self.shape.heads:
            raise ConfigError(f"defense.reader_width={self.shape.width} is no multiple of {self.shape.heads} heads")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"defense.reader_learning_rate={self.learning_rate:g} is out of range: above 0, and finite"
            )
