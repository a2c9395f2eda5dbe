"""Every stream's prompt, read off its transcript."""

from dataclasses import dataclass

import numpy as np
import torch

from attacks.base import Public
from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion
from attacks.prompts.pick_stream.lineup import Lineup
from smd_research.boundary import AdversaryView
from smd_research.core.guess import Guess, Spent


@dataclass(frozen=True, repr=False)
class StreamReading:
    """The streams of one request as they were read.

    Attributes:
        lineup: the prompts.
        certified: whether every one proved itself.
        residual: the largest residual.
        spent: what it cost.
        exhausted: whether a budget ended a search early.
    """

    lineup: Lineup
    certified: bool
    residual: float | None
    spent: Spent
    exhausted: bool

    @property
    def complete(self) -> bool:
        """Whether there is a token at every position of every stream."""
        return bool((self.lineup.ids >= 0).all())


class Reader:
    """Partial-attention inversion, stream by stream.

    Args:
        public: what is public.
    """

    def __init__(self, public: Public) -> None:
        self._inversion = PartialAttentionInversion(ranked=1)
        self._inversion.fit(public)

    def read(self, view: AdversaryView, rng: np.random.Generator) -> StreamReading:
        """Read all streams of one request."""
        return _together([self._inversion.recover(view.stream(stream), rng) for stream in range(view.streams)])


def _together(guesses: list[Guess]) -> StreamReading:
    residuals = [guess.residual for guess in guesses if guess.residual is not None]
    return StreamReading(
        lineup=Lineup(torch.tensor([guess.ids for guess in guesses])),
        certified=all(guess.certified for guess in guesses),
        residual=max(residuals, default=None),
        spent=sum((guess.spent for guess in guesses), Spent()),
        exhausted=any(guess.exhausted for guess in guesses),
    )
