"""How the next token is drawn: greedily, or with a counter-based generator of the request's own.

A draw depends on the request's seed, the stream and the step alone (Philox, a counter-based generator): other requests
in the batch, their coming and going and the order of work change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """The law of the next token.

    Attributes:
        temperature: divides the logits; 0 is the greedy choice.
        top_p: keep the most likely tokens that together have this probability; 1 keeps all.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature} is out of range: use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} is out of range: use more than 0 and at most 1")

    def probabilities(self, logits: Tensor) -> Tensor:
        """The law ``[rows, vocab]`` (fp64) that logits ``[rows, vocab]`` stand for; temperature above 0 only."""
        law = torch.softmax(logits.double() / self.temperature, dim=-1)
        if self.top_p == 1:
            return law
        ordered, order = law.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        kept = torch.where(before < self.top_p, ordered, 0.0)
        kept /= kept.sum(-1, keepdim=True)
        return torch.zeros_like(law).scatter(-1, order, kept)

    def choose(self, logits: Tensor, seed: int, step: int, streams: Sequence[int] | None = None) -> list[int]:
        """The next token of every row of ``logits [rows, vocab]``.

        Args:
            logits: one row a stream.
            seed: of the request.
            step: index of the token to draw, counted from the request's first generated token.
            streams: number of the stream of each row; None counts from 0.
        """
        if self.temperature == 0:
            greedy: list[int] = logits.argmax(-1).tolist()
            return greedy
        numbers = range(len(logits)) if streams is None else streams
        draws = torch.tensor([[uniform(seed, stream, step)] for stream in numbers], dtype=torch.float64)
        law = self.probabilities(logits).cumsum(-1)
        total = law[:, -1:].contiguous()
        chosen: list[int] = torch.searchsorted(law, draws.to(law.device) * total, right=True)[:, 0].tolist()
        return [min(token, logits.shape[-1] - 1) for token in chosen]


GREEDY = Sampling()


def uniform(seed: int, stream: int, step: int) -> float:
    """The draw in ``[0, 1)`` of one step of one stream of a request."""
    key = np.array([seed & (2**64 - 1), stream], dtype=np.uint64)
    counter = np.array([0, 0, 0, step], dtype=np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key, counter=counter)).random())
