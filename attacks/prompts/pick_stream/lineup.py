"""The line-up: what was read off each stream, and where the streams differ."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from smd_research.core.guess import Verdict

SURE = 0.95


@dataclass(frozen=True, repr=False)
class Lineup:
    """Prompts side by side, one a stream.

    Attributes:
        ids: token ids ``[streams, n]``.
    """

    ids: Tensor

    @property
    def size(self) -> int:
        """How many prompts."""
        return len(self.ids)

    @cached_property
    def differs(self) -> Tensor:
        """Positions at which not all prompts agree: what is secret ``[n]`` (bool)."""
        return (self.ids != self.ids[:1]).any(0)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Runs ``[start, end)`` of positions that differ."""
        edges = torch.diff(self.differs.int(), prepend=torch.zeros(1), append=torch.zeros(1))
        return tuple(zip((edges > 0).nonzero()[:, 0].tolist(), (edges < 0).nonzero()[:, 0].tolist(), strict=True))

    @property
    def first(self) -> int:
        """The first position that differs; the length where none does."""
        return self.spans[0][0] if self.spans else self.ids.shape[1]

    def values(self, secret: Tensor | None = None) -> list[tuple[int, ...]]:
        """What each prompt holds at the positions that differ, or at ``secret [n]`` (bool)."""
        where = self.differs if secret is None else secret
        return [tuple(row) for row in self.ids[:, where].tolist()]


def verdict(judge: str, weights: Tensor, rng: np.random.Generator, requests: int | None = None) -> Verdict:
    """What log weights ``[streams]`` say: their softmax, and a pick among the best.

    Weights within rounding of the best tie, so that no order of the streams decides. Where all are ``-inf`` nothing is
    known.
    """
    known = weights.double()
    if not bool((known > -torch.inf).any()):
        known = torch.zeros_like(known)
    best = known.max()
    tied = (known >= best - 1e-6 * max(1.0, float(best.abs()))).nonzero()[:, 0].tolist()
    return Verdict(judge, tuple(torch.softmax(known, 0).tolist()), int(rng.choice(tied)), requests)
